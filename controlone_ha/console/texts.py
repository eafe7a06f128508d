"""The sentences and words of the failover client, in English and Brazilian Portuguese.

A cause has a code and parameters; its sentence is made here, for the status, the indication and the
command. A code this version does not know is shown as it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

ENGLISH = "en"
PORTUGUESE = "pt_BR"

SENTENCES: Mapping[str, tuple[str, str]] = {
    "started": ("the console has been started", "o console foi iniciado"),
    "returned": ("a better server of the list is well again", "um servidor melhor voltou"),
    "silent": ("{server} has been silent for {seconds} s", "{server} está mudo há {seconds} s"),
    "lost_packets": (
        "{server} left {count} requests in a row unanswered",
        "{server} deixou {count} pedidos seguidos sem resposta",
    ),
    "reset": (
        "{server} broke the connection ({text})",
        "{server} interrompeu a conexão ({text})",
    ),
    "closed": (
        "{server} closed the connection without a word",
        "{server} fechou a conexão sem avisar",
    ),
    "goodbye": ("{server} sent this console away: {text}", "{server} dispensou o console: {text}"),
    "replaced": (
        "another console has logged in under this name: {text}",
        "outro console entrou com este nome: {text}",
    ),
    "refused": ("{server} refuses connections", "{server} recusa conexões"),
    "unreachable": ("{server} cannot be reached: {text}", "{server} está inacessível: {text}"),
    "no_address": ("{server} has no address: {text}", "{server} não tem endereço: {text}"),
    "no_answer": (
        "{server} gave no answer within {seconds} s",
        "{server} não respondeu em {seconds} s",
    ),
    "certificate": (
        "{server} presents a certificate that is not of this cluster ({seen}…)",
        "{server} apresenta um certificado que não é deste cluster ({seen}…)",
    ),
    "protocol": (
        "{server} does not speak as a Console Server: {text}",
        "{server} não fala como um Console Server: {text}",
    ),
    "token": ("{server} does not accept this console: {text}", "{server} não aceita: {text}"),
    "login": ("{server} refused the login: {text}", "{server} recusou o login: {text}"),
    "standby": (
        "{server} is a standby and waits for its turn",
        "{server} está em espera pela sua vez",
    ),
    "not_serving": ("{server} does not serve: {text}", "{server} não atende: {text}"),
    "no_network": (
        "this machine has no network: no cable or no link is up",
        "esta máquina está sem rede: nenhum cabo ou enlace ativo",
    ),
    "unavailable": ("no server is available: {why}", "nenhum servidor disponível: {why}"),
    "switching": ("changing to another server: {why}", "mudando para outro servidor: {why}"),
    "not_first": (
        "on {node}, not on the first server: {why}",
        "em {node}, e não no primeiro servidor: {why}",
    ),
    "no_other": (
        "none of the {count} other servers would take over",
        "nenhum dos outros {count} servidores poderia assumir",
    ),
    "others_down": ("not well: {servers}", "com problema: {servers}"),
    "not_enrolled": (
        "no server is pinned: run `console enrol SERVER`",
        "nenhum servidor fixado: execute `console enrol SERVIDOR`",
    ),
    "setting": ("a setting was skipped: {text}", "configuração ignorada: {text}"),
}

WORDS: Mapping[str, tuple[str, str]] = {
    "state.connected": ("connected", "conectado"),
    "state.switching": ("switching", "mudando"),
    "state.unavailable": ("UNAVAILABLE", "INDISPONÍVEL"),
    "health.serving": ("serving", "atende"),
    "health.standby": ("standby", "em espera"),
    "health.refusing": ("refusing", "recusa"),
    "health.down": ("down", "fora"),
    "health.unknown": ("not tested yet", "ainda não testado"),
    "column.number": ("", ""),
    "column.server": ("SERVER", "SERVIDOR"),
    "column.node": ("NODE", "NÓ"),
    "column.health": ("HEALTH", "SAÚDE"),
    "column.checked": ("CHECKED", "TESTADO"),
    "column.rtt": ("RTT", "RTT"),
    "column.detail": ("DETAIL", "DETALHE"),
    "label.console": ("console", "console"),
    "label.on": ("on", "em"),
    "label.since": ("since", "desde"),
    "label.reason": ("because", "porque"),
    "label.queues": ("queues", "filas"),
    "label.calls": ("calls", "chamadas"),
    "label.ago": ("{time} ago", "há {time}"),
    "label.attention": ("ATTENTION", "ATENÇÃO"),
    "error.down": (
        "the failover client does not run (start it: service console start)",
        "o cliente de failover não está em execução (inicie: service console start)",
    ),
    "error.silent": ("the failover client does not answer", "o cliente de failover não responde"),
    "error.denied": ("this needs root", "isto requer root"),
    "error.usage": ("unknown command or option: {word}", "comando ou opção desconhecida: {word}"),
    "error.enrol": ("enrolment failed: {text}", "o cadastro falhou: {text}"),
    "enrol.code": (
        "Approve this console on a node of the cluster:\n\n"
        "    ha console approve {console} {code}\n\nWaiting …",
        "Aprove este console em um nó do cluster:\n\n"
        "    ha console approve {console} {code}\n\nAguardando …",
    ),
    "enrol.done": (
        "Enrolled as {console}; {count} servers pinned.",
        "Cadastrado como {console}; {count} servidores fixados.",
    ),
    "enrol.usage": ("usage: console enrol SERVER", "uso: console enrol SERVIDOR"),
    "reload.done": (
        "settings read again: {count} servers",
        "configuração relida: {count} servidores",
    ),
    "help": (
        "Usage: console COMMAND [--json] [--lang en|pt_BR]\n\n"
        "  status [-w [SECONDS]]  which server, why, since when; how the others are\n"
        "  enrol SERVER           ask the cluster for this console's credential\n"
        "  reload                 read /etc/config/console again; a good connection stays\n"
        "  run                    the failover client itself, in the foreground\n"
        "  version, help\n\n"
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the client does not run, 4 not connected",
        "Uso: console COMANDO [--json] [--lang en|pt_BR]\n\n"
        "  status [-w [SEGUNDOS]] qual servidor, por quê, desde quando; e os outros\n"
        "  enrol SERVIDOR         pede ao cluster a credencial deste console\n"
        "  reload                 relê /etc/config/console; uma conexão boa permanece\n"
        "  run                    o próprio cliente de failover, em primeiro plano\n"
        "  version, help\n\n"
        "Saídas: 0 feito, 1 falhou, 2 uso errado, 3 cliente não executa, 4 não conectado",
    ),
}


def choose_language(asked: str | None, environment: Mapping[str, str] | None = None) -> str:
    """Return the language: ``asked``, else LC_ALL, LC_MESSAGES, LANG, as POSIX orders them."""
    env = os.environ if environment is None else environment
    name = asked or env.get("LC_ALL") or env.get("LC_MESSAGES") or env.get("LANG") or ""
    return PORTUGUESE if name.lower().startswith("pt") else ENGLISH


def sentence(code: str, params: Mapping[str, Any], language: str) -> str:
    """Return the sentence of a cause. A parameter may be a cause itself."""
    known = SENTENCES.get(code)
    if known is None:
        return code
    filled: dict[str, Any] = {"server": "the server" if language == ENGLISH else "o servidor"}
    for name, value in params.items():
        if isinstance(value, Mapping) and "code" in value:
            value = sentence(str(value["code"]), value.get("params") or {}, language)
        filled[name] = value
    try:
        return known[language != ENGLISH].format(**filled)
    except KeyError:
        return code


def word(key: str, language: str, **params: Any) -> str:
    """Return a word or text in this language; an unknown value of a kind as it is."""
    known = WORDS.get(key)
    if known is None:
        return key.partition(".")[2]
    text = known[language != ENGLISH]
    return text.format(**params) if params else text
