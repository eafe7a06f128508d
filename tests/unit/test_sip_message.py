"""Reading and writing SIP messages, the torture messages of RFC 4475 included."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlone_ha.sip.fields import (
    canonical_name,
    parse_address,
    parse_parameters,
    parse_via,
    split_list,
)
from controlone_ha.sip.message import (
    Request,
    Response,
    SipSyntaxError,
    build_request,
    build_response,
    fault,
    parse,
)

TORTURE = Path(__file__).parent.parent / "data" / "rfc4475"

OPTIONS = (
    b"OPTIONS sip:10.0.0.1:5060 SIP/2.0\r\n"
    b"v: SIP/2.0/UDP 10.0.0.2:5060;rport;branch=z9hG4bK1\r\n"
    b"f: <sip:ha@10.0.0.2>;tag=a\r\n"
    b"t: <sip:10.0.0.1>\r\n"
    b"i: call\r\n"
    b"CSeq: 1 OPTIONS\r\n"
    b"Max-Forwards: 70\r\n"
    b"l: 0\r\n\r\n"
)


def torture(name: str) -> bytes:
    return (TORTURE / f"{name}.dat").read_bytes()


# RFC 4475: 3.1.1 (valid), 3.2 to 3.4 (well-formed; what is odd about them is above this layer).
WELL_FORMED = [
    ("wsinv", "INVITE"),
    ("intmeth", "!interesting-Method0123456789_*+`.%indeed'~"),
    ("esc01", "INVITE"),
    ("escnull", "REGISTER"),
    ("esc02", "RE%47IST%45R"),
    ("lwsdisp", "OPTIONS"),
    ("longreq", "INVITE"),
    ("dblreq", "REGISTER"),
    ("semiuri", "OPTIONS"),
    ("transports", "OPTIONS"),
    ("mpart01", "MESSAGE"),
    ("baddate", "INVITE"),
    ("badbranch", "OPTIONS"),
    ("unkscm", "OPTIONS"),
    ("novelsc", "OPTIONS"),
    ("unksm2", "REGISTER"),
    ("bext01", "OPTIONS"),
    ("invut", "INVITE"),
    ("regaut01", "REGISTER"),
    ("zeromf", "OPTIONS"),
    ("cparam01", "REGISTER"),
    ("cparam02", "REGISTER"),
    ("regescrt", "REGISTER"),
    ("sdp01", "INVITE"),
    ("inv2543", "INVITE"),
]
WELL_FORMED_RESPONSES = [
    ("unreason", 200),
    ("noreason", 100),
    ("bcast", 200),
]
FAULTY = [
    ("badinv01", "Via cannot be read"),
    ("scalar02", "CSeq cannot be used"),
    ("scalarlg", "CSeq cannot be used"),
    ("quotbal", "To cannot be read"),
    ("escruri", "Request-URI carries header fields"),
    ("regbadct", "Contact cannot be read"),
    ("badaspec", "To cannot be read"),
    ("mismatch01", "CSeq is for 'INVITE', the request is 'OPTIONS'"),
    ("mismatch02", "CSeq is for 'INVITE', the request is 'NEWMETHOD'"),
    ("insuf", "From is missing"),
    ("multi01", "Call-ID stands 2 times"),
]
UNFRAMED = [
    ("clerr", 400, "Content-Length is 9999"),
    ("ncl", 400, "Content-Length is not a length"),
    ("mcl01", 400, "two different Content-Length"),
    ("ltgtruri", 400, "Request-URI is not a URI"),
    ("lwsruri", 400, "not a start line"),
    ("lwsstart", 400, "not a start line"),
    ("trws", 400, "not a start line"),
    ("badvers", 505, "version 'SIP/7.0'"),
    ("bigcode", 400, "three-digit code"),
    ("baddn", 400, "no empty line"),  # the archive's copy lacks the final empty line
]


class TestTorture:
    def test_every_message_of_the_rfc_is_covered_here(self) -> None:
        covered = {row[0] for row in [*WELL_FORMED, *WELL_FORMED_RESPONSES, *FAULTY, *UNFRAMED]}
        assert covered == {path.stem for path in TORTURE.glob("*.dat")}

    @pytest.mark.parametrize(("name", "method"), WELL_FORMED)
    def test_well_formed_requests_are_read_without_fault(self, name: str, method: str) -> None:
        message = parse(torture(name))
        assert isinstance(message, Request)
        assert message.method == method
        assert fault(message) is None

    @pytest.mark.parametrize(("name", "status"), WELL_FORMED_RESPONSES)
    def test_well_formed_responses_are_read_without_fault(self, name: str, status: int) -> None:
        message = parse(torture(name))
        assert isinstance(message, Response)
        assert message.status == status
        assert fault(message) is None

    @pytest.mark.parametrize(("name", "sentence"), FAULTY)
    def test_faulty_messages_are_framed_and_their_fault_is_told(
        self, name: str, sentence: str
    ) -> None:
        assert (fault(parse(torture(name))) or "").startswith(sentence)

    @pytest.mark.parametrize(("name", "status", "sentence"), UNFRAMED)
    def test_messages_that_cannot_be_framed_are_refused(
        self, name: str, status: int, sentence: str
    ) -> None:
        with pytest.raises(SipSyntaxError, match=sentence) as raised:
            parse(torture(name))
        assert raised.value.status == status

    def test_an_unquoted_comma_in_a_display_name_is_a_fault(self) -> None:
        message = parse(torture("baddn") + b"\r\n")
        assert (fault(message) or "").startswith("From cannot be read")

    def test_folded_and_oddly_spaced_headers_of_wsinv_have_their_values(self) -> None:
        message = parse(torture("wsinv"))
        assert message.cseq == (9, "INVITE")
        assert message.get("To") == "sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n"
        assert (to := parse_address(message.get("To"))) is not None and to.tag == "1918181833n"
        vias = [parse_via(item) for item in message.items("Via")]
        assert [via.transport for via in vias if via] == ["UDP", "TCP", "UDP"] or len(vias) == 3
        assert message.get("Subject") == ""
        assert message.get("NewFangledHeader").startswith("newfangled value continued newfangled")

    def test_the_first_of_two_requests_in_a_datagram_is_read(self) -> None:
        message = parse(torture("dblreq"))
        assert isinstance(message, Request)
        assert message.body == b""
        assert message.top_via is not None and message.top_via.branch == "z9hG4bKkdjuw23492"

    @pytest.mark.parametrize("name", [row[0] for row in [*WELL_FORMED, *WELL_FORMED_RESPONSES]])
    def test_what_is_written_is_read_back_the_same(self, name: str) -> None:
        message = parse(torture(name))
        again = parse(message.to_bytes())
        assert (again.start_line, again.headers, again.body) == (
            message.start_line,
            message.headers,
            message.body,
        )


class TestReading:
    def test_compact_forms_get_their_names(self) -> None:
        message = parse(OPTIONS)
        assert [name for name, _ in message.headers] == [
            "Via",
            "From",
            "To",
            "Call-ID",
            "CSeq",
            "Max-Forwards",
        ]

    def test_leading_empty_lines_and_bare_line_feeds_are_tolerated(self) -> None:
        message = parse(b"\r\n\r\n" + OPTIONS.replace(b"\r\n", b"\n"))
        assert fault(message) is None

    def test_bytes_that_are_not_utf8_survive(self) -> None:
        data = OPTIONS.replace(b"i: call", b"i: \xff\xfe@\x80")
        message = parse(data)
        assert b"Call-ID: \xff\xfe@\x80\r\n" in message.to_bytes()

    def test_bytes_after_content_length_are_dropped(self) -> None:
        assert parse(OPTIONS.replace(b"l: 0", b"l: 2") + b"abcd").body == b"ab"

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\r\n\r\n",
            b"\x00",
            b"GET / HTTP/1.1\r\n\r\n",
            b"SIP/2.0\r\n\r\n",
            b"SIP/2.0 099 Low\r\n\r\n",
            b"SIP/2.0 700 High\r\n\r\n",
            b"SIP/2.0 20x OK\r\n\r\n",
            b"OPTIONS sip:a SIP/2.0\r\nno colon here\r\n\r\n",
            b"OPTIONS sip:a SIP/2.0\r\n: no name\r\n\r\n",
            b"OPTIONS sip:a SIP/2.0\r\nVia\r\n\r\n",
            b"OPTIONS nothing SIP/2.0\r\n\r\n",
            b"OPT<IONS sip:a SIP/2.0\r\n\r\n",
            b"OPTIONS sip:a SIP/2.0\r\nContent-Length: \xd9\xa1\r\n\r\n",
            b"OPTIONS sip:a SIP/2.0\r\n" + b"X: y\r\n" * 600 + b"\r\n",
        ],
    )
    def test_what_is_no_sip_message_is_refused(self, data: bytes) -> None:
        with pytest.raises(SipSyntaxError):
            parse(data)

    @given(st.binary(max_size=400))
    def test_no_bytes_make_the_parser_raise_anything_else(self, data: bytes) -> None:
        for candidate in (data, OPTIONS[:90] + data + b"\r\n\r\n", OPTIONS[:-2] + data + b"\r\n"):
            try:
                message = parse(candidate)
            except SipSyntaxError as error:
                assert error.status in (400, 505, 513)
            else:
                fault(message)
                assert parse(message.to_bytes()).headers == message.headers

    @pytest.mark.parametrize(
        ("value", "items"),
        [
            ("", []),
            ("a", ["a"]),
            ("a, b ,c", ["a", "b", "c"]),
            ('"x, y" <sip:a>, <sip:b,c>', ['"x, y" <sip:a>', "<sip:b,c>"]),
            ('"a \\", b" <sip:x>', ['"a \\", b" <sip:x>']),
            (" , ,a,", ["a"]),
        ],
    )
    def test_lists_split_only_at_commas_outside_quotes_and_brackets(
        self, value: str, items: list[str]
    ) -> None:
        assert split_list(value) == items

    @pytest.mark.parametrize(
        ("value", "transport", "host", "port", "branch"),
        [
            ("SIP/2.0/UDP 10.0.0.2:5060;branch=z9hG4bKx", "UDP", "10.0.0.2", 5060, "z9hG4bKx"),
            ("SIP / 2.0 / tcp  a.example ; branch = b", "TCP", "a.example", None, "b"),
            ("SIP/2.0/TLS [2001:db8::1]:5061;rport", "TLS", "[2001:db8::1]", 5061, ""),
            ("SIP/2.0/UDP a;branch=1, SIP/2.0/UDP b;branch=2", "UDP", "a", None, "1"),
        ],
    )
    def test_via_is_read(
        self, value: str, transport: str, host: str, port: int | None, branch: str
    ) -> None:
        via = parse_via(value)
        assert via is not None
        assert (via.transport, via.host, via.port, via.branch) == (transport, host, port, branch)

    @pytest.mark.parametrize(
        "value", ["", "UDP 10.0.0.1", "SIP/2.0/UDP", "SIP/2.0/UDP a:70000", "SIP/2.0/UDP a;;b"]
    )
    def test_a_via_that_cannot_be_read_is_none(self, value: str) -> None:
        assert parse_via(value) is None

    @pytest.mark.parametrize(
        ("value", "display", "uri", "tag"),
        [
            ("<sip:a@b>;tag=1", "", "sip:a@b", "1"),
            ("sip:a@b;tag=1", "", "sip:a@b", "1"),
            ("Bell <sip:a@b;lr>;x;tag=2", "Bell", "sip:a@b;lr", "2"),
            ('"A \\"B\\" <c>" <sip:a@b>', 'A "B" <c>', "sip:a@b", ""),
            ("caller<sip:a@b>", "caller", "sip:a@b", ""),
        ],
    )
    def test_addresses_are_read(self, value: str, display: str, uri: str, tag: str) -> None:
        address = parse_address(value)
        assert address is not None
        assert (address.display_name, address.uri, address.tag) == (display, uri, tag)

    def test_parameters_keep_quoted_values_whole(self) -> None:
        assert parse_parameters(';a="x;y\\"z";B=c;d') == {"a": '"x;y\\"z"', "b": "c", "d": None}


class TestWriting:
    def test_names_are_written_in_canonical_spelling_and_length_is_computed(self) -> None:
        request = build_request(
            "OPTIONS",
            "sip:10.0.0.1",
            [("via", "SIP/2.0/UDP a"), ("i", "x"), ("CONTENT-LENGTH", "99"), ("X-My-Own", "1")],
            b"body",
        )
        assert request.to_bytes() == (
            b"OPTIONS sip:10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP a\r\nCall-ID: x\r\nX-My-Own: 1\r\n"
            b"Content-Length: 4\r\n\r\nbody"
        )

    @pytest.mark.parametrize(
        ("name", "canonical"),
        [("call-id", "Call-ID"), ("CSEQ", "CSeq"), ("www-authenticate", "WWW-Authenticate")],
    )
    def test_canonical_names(self, name: str, canonical: str) -> None:
        assert canonical_name(name) == canonical

    @pytest.mark.parametrize("value", ["a\r\nX: y", "a\nX: y", "a\rb"])
    def test_a_line_break_in_a_value_is_never_written(self, value: str) -> None:
        with pytest.raises(ValueError, match="line break"):
            build_request("OPTIONS", "sip:a", [("Subject", value)]).to_bytes()

    @pytest.mark.parametrize(
        ("method", "uri"), [("OPT IONS", "sip:a"), ("OPTIONS", "sip:a b"), ("OPTIONS", "a\r\nb")]
    )
    def test_a_start_line_that_would_break_is_refused(self, method: str, uri: str) -> None:
        with pytest.raises(ValueError, match="not a request line"):
            build_request(method, uri, [])

    def test_a_response_copies_what_the_rfc_says_and_adds_the_tag_once(self) -> None:
        request = parse(OPTIONS)
        assert isinstance(request, Request)
        response = build_response(request, 200, "OK", to_tag="b", headers=[("Server", "x")])
        again = parse(response.to_bytes())
        assert isinstance(again, Response)
        assert again.status == 200
        assert again.get("Via") == request.get("Via")
        assert again.get("To") == "<sip:10.0.0.1>;tag=b"
        assert again.cseq == (1, "OPTIONS")
        assert fault(again) is None
