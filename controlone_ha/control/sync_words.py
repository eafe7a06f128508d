"""What the synchronisation says of files and documents, in Brazilian Portuguese. Pure.

Its sentences are made on the node where something went wrong, in English, kept in the journal and
told to peers of other versions; so they are translated where a person reads them, by their form. A
sentence of an unknown form stays as it is.
"""

from __future__ import annotations

import functools
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FORMS: Sequence[tuple[str, str]] = (
    # Files that cannot be taken
    ("{path}: is a symbolic link; only regular files are synchronised",
     "{path}: é um link simbólico; só arquivos comuns são sincronizados"),
    ("{path}: only regular files are synchronised",
     "{path}: só arquivos comuns são sincronizados"),
    ("{path}: a directory is in the way", "{path}: há um diretório no lugar"),
    ("{path}: is no regular file", "{path}: não é um arquivo comum"),
    ("{path}: a symbolic link leads out of {root}",
     "{path}: um link simbólico leva para fora de {root}"),
    ("{path}: more than {most} bytes", "{path}: mais de {most} bytes"),
    ("{path}: what was written cannot be read back",
     "{path}: o que foi escrito não pode ser lido de volta"),
    ("{path}: the content that arrived has another checksum",
     "{path}: o conteúdo que chegou tem outra soma de verificação"),
    ("{path}: another size than announced", "{path}: tamanho diferente do anunciado"),
    ("{path}: has changed meanwhile", "{path}: mudou nesse meio-tempo"),
    ("{path}: another version is here by now", "{path}: já há outra versão aqui"),
    ("{path}: is not here", "{path}: não está aqui"),
    ("{path}: damaged: other bytes under the same size and times",
     "{path}: danificado: outros bytes com o mesmo tamanho e os mesmos horários"),
    ("{path}: this node does not take {item}", "{path}: este nó não recebe {item}"),
    ("{path}: not part of {item} on this node", "{path}: não faz parte de {item} neste nó"),
    ("{path}: not an absolute path", "{path}: não é um caminho absoluto"),
    ("{path}: a path of more than {most} characters",
     "{path}: um caminho de mais de {most} caracteres"),
    ("{path}: a name with a line break or another control character",
     "{path}: um nome com quebra de linha ou outro caractere de controle"),
    ("{path}: a name that is not UTF-8", "{path}: um nome que não é UTF-8"),
    ("{path}: a path with '.', '..' or empty parts",
     "{path}: um caminho com '.', '..' ou partes vazias"),
    ("{path}: cannot be watched: {why}", "{path}: não pode ser observado: {why}"),
    ("{path}: a version that is older than what it holds",
     "{path}: uma versão mais antiga do que aquilo que contém"),
    ("{path}: a version without a checksum", "{path}: uma versão sem soma de verificação"),
    ("{path}: No space left on device", "{path}: não há espaço no dispositivo"),
    ("{path}: Read-only file system", "{path}: sistema de arquivos somente leitura"),
    ("{path}: Permission denied", "{path}: permissão negada"),
    ("{path}: Input/output error", "{path}: erro de entrada/saída"),
    ("{path}: File name too long", "{path}: nome de arquivo longo demais"),
    ("{path}: Not a directory", "{path}: não é um diretório"),
    ("{path}: Disk quota exceeded", "{path}: cota de disco excedida"),
    # Clocks
    ("{path}: stamped {ahead} s in the future by {node} ({stamp}): a clock is wrong",
     "{path}: com carimbo {ahead} s no futuro, de {node} ({stamp}): um relógio está errado"),
    ("the clock of {peer} is {skew} s ahead of this node's; more than {limit} s are not safe",
     "o relógio de {peer} está {skew} s à frente do deste nó; mais de {limit} s não é seguro"),
    ("the clock of {peer} is {skew} s behind this node's; more than {limit} s are not safe",
     "o relógio de {peer} está {skew} s atrás do deste nó; mais de {limit} s não é seguro"),
    ("the clocks have not been compared yet", "os relógios ainda não foram comparados"),
    ("its clock differs by {skew} s, allowed are {limit} s",
     "seu relógio difere {skew} s, o permitido são {limit} s"),
    # Peers and items
    ("not synchronised on {peer}", "não é sincronizado em {peer}"),
    ("{path} is not synchronised on this node any more",
     "{path} não é mais sincronizado neste nó"),
    ("{item} is not synchronised on {peer}", "{item} não é sincronizado em {peer}"),
    ("{node} does not synchronise with {peer}", "{node} não sincroniza com {peer}"),
    ("no answer in time", "não respondeu a tempo"),
    ("{peer} answers {method} with nonsense", "{peer} responde a {method} com algo sem sentido"),
    ("the peer sent less than it announced", "o peer enviou menos do que anunciou"),
    ("the file became shorter while it was sent", "o arquivo encolheu durante o envio"),
    ("no link with {peer} to compare over; linked: {names}",
     "não há enlace com {peer} para comparar; com enlace: {names}"),
    ("{item} is not synchronised; there are: {names}",
     "{item} não é sincronizado; existem: {names}"),
    ("no link", "sem enlace"),
    ("{count} files", "{count} arquivos"),
    ("{what} (and {count} more)", "{what} (e mais {count})"),
    ("{item}: `{command}` cannot be run: {why}",
     "{item}: `{command}` não pode ser executado: {why}"),
    ("{item}: `{command}` did not end within {limit} s, killed",
     "{item}: `{command}` não terminou em {limit} s e foi encerrado"),
    ("{item}: `{command}` gave {code}", "{item}: `{command}` terminou com {code}"),
    # Conflict copies
    ("there is no conflict copy {name}; `ha conflicts` lists them",
     "não há cópia de conflito {name}; `ha conflicts` mostra quais existem"),
    ("{name} may be any of {count} conflict copies: type more of it",
     "{name} pode ser qualquer uma de {count} cópias de conflito: digite mais letras"),
    ("{what} was changed by {loser} and, later, by {winner}",
     "{what} foi alterado por {loser} e, depois, por {winner}"),
    ("{what} was changed by {loser}, and its section deleted later by {winner}",
     "{what} foi alterado por {loser}, e sua seção foi apagada depois por {winner}"),
    ("{what} was changed by {loser}, and the file rewritten by {winner}",
     "{what} foi alterado por {loser}, e o arquivo foi reescrito por {winner}"),
    ("{what} as {loser} left it does not go together with the later file of {winner}",
     "{what}, como {loser} o deixou, não combina com o arquivo posterior de {winner}"),
    # The database
    ("connection refused: no database on it", "conexão recusada: não há banco de dados ali"),
    ("connection reset", "conexão interrompida"),
    ("accepts connections but does not answer in time",
     "aceita conexões, mas não responde a tempo"),
    ("takes no writes (not primary)", "não aceita escritas (não é primário)"),
    ("answers, but takes no writes (not primary)",
     "responde, mas não aceita escritas (não é primário)"),
    ("refuses the login: wrong secret or unknown user",
     "recusa o login: segredo errado ou usuário desconhecido"),
    ("closes the connection: it may not accept our certificate",
     "encerra a conexão: talvez não aceite nosso certificado"),
    ("no TLS with it: {why}", "sem TLS com ele: {why}"),
    ("its list of peers does not name this node", "sua lista de peers não inclui este nó"),
    ("its synchroniser has not begun yet", "seu sincronizador ainda não começou"),
    ("catching up", "recuperando o atraso"),
    ("first scan", "primeira varredura"),
    ("scan after the oplog rolled over", "varredura depois que o oplog deu a volta"),
    ("this node returns: comparing what it has with this peer",
     "este nó está de volta: comparando o que tem com este peer"),
    ("this node's own database: {why}", "o banco de dados deste nó: {why}"),
)  # fmt: skip
"""(English, Portuguese); a name in braces stands for any text, itself translated if it can be."""

_NAME = re.compile(r"\{(\w+)\}")


@functools.cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    found = []
    for english, portuguese in FORMS:
        # Where nothing but a parameter is at the beginning, it may not run over a further one.
        pattern = _NAME.sub(
            r"(?P<\1>.+?)", re.escape(english).replace(r"\{", "{").replace(r"\}", "}")
        )
        found.append((re.compile(pattern, re.DOTALL), portuguese))
    return found


def in_portuguese(sentence: str) -> str:
    """Return the sentence in Portuguese as far as its form is known; else unchanged."""
    for pattern, portuguese in _patterns():
        match = pattern.fullmatch(sentence)
        if match is not None:
            values = {name: _value(name, text) for name, text in match.groupdict().items()}
            return portuguese.format(**values)
    prefix, colon, rest = sentence.partition(": ")
    if colon and " " not in prefix:
        return f"{prefix}: {in_portuguese(rest)}"
    return sentence


def _value(name: str, text: str) -> str:
    if name in ("why", "what"):
        return in_portuguese(text)
    if name in ("ahead", "skew", "limit"):
        return text.replace(".", ",")
    return text
