"""The words of the table of options in Brazilian Portuguese, for forms; a test finds what lacks.

Keys are the English texts of ``config.schema`` and of ``config.validate.expectation``. The daemons
refuse in English, the language of the log; nothing here is read by them.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from controlone_ha.config.kinds import OptionRow

TEXTS = {
    "0 switches high availability off on this node": "0 desliga a alta disponibilidade neste nó",
    "name of this node; empty: the host name": "nome deste nó; vazio: o nome do host",
    "master starts active, slave starts standby, passive holds data only": (
        "master começa ativo, slave começa em espera, passive apenas guarda os dados"
    ),
    "the other nodes that this one monitors and synchronises with": (
        "os outros nós que este monitora e com os quais sincroniza"
    ),
    "password of the cluster, the same on every node": "senha do cluster, a mesma em todos os nós",
    "who takes over first: the higher number": "quem assume primeiro: o número maior",
    "site of this node: nodes of one site may fall silent together": (
        "local deste nó: nós do mesmo local podem silenciar juntos"
    ),
    "address of this node as its peers reach it; empty: as found": (
        "endereço deste nó como os outros o alcançam; vazio: o encontrado"
    ),
    "rhythm of the watchdog: SIP, console and host checks": (
        "ritmo do watchdog: verificações de SIP, de consoles e da máquina"
    ),
    "rhythm of heartbeats on a link; 0: a tenth of interval, from 0.1 to 1 s": (
        "ritmo dos sinais de vida em um enlace; 0: um décimo de interval, de 0,1 a 1 s"
    ),
    "how long an answer may take, and when a silent link is closed": (
        "quanto uma resposta pode demorar, e quando um enlace em silêncio é fechado"
    ),
    "unanswered probes in a row before a service counts as failed": (
        "verificações seguidas sem resposta até que um serviço conte como falho"
    ),
    "1: a slave returns to standby when the others are back": (
        "1: um slave volta à espera quando os outros voltaram"
    ),
    "how long they must have been back by then": "há quanto tempo eles devem ter voltado",
    "a node that keeps failing must be back for longer: the delay doubles with each return of"
    " the last ten minutes, up to this many times; 1: never": (
        "um nó que falha repetidamente deve ter voltado há mais tempo: a espera dobra a cada"
        " retorno dos últimos dez minutos, até este número de vezes; 1: nunca"
    ),
    "how long a node must be free of abnormality before its Console Server comes back": (
        "quanto tempo um nó deve ficar sem anormalidades até que seu Console Server volte"
    ),
    "confirm: live calls of a silent node are taken only when somebody at its site confirms it;"
    " take: this node's silence suffices (two nodes in all; a cut between them may end calls"
    " that went on)": (
        "confirm: chamadas ativas de um nó em silêncio só são assumidas quando alguém no local"
        " dele o confirma; take: o silêncio basta (dois nós ao todo; um corte entre eles pode"
        " encerrar chamadas que continuavam)"
    ),
    "how long a node whose Asterisk died has to take its own live calls up again before others"
    " may; 0: others take them at once": (
        "quanto tempo um nó cujo Asterisk parou tem para retomar suas próprias chamadas antes que"
        " outros possam; 0: outros as assumem de imediato"
    ),
    "how long each rank waits for the one before it; 0: one heartbeat, at least 0.25 s": (
        "quanto cada posição espera pela anterior; 0: um sinal de vida, no mínimo 0,25 s"
    ),
    "user that peers log in as on this cluster's nodes": (
        "usuário com que os nós deste cluster entram uns nos outros"
    ),
    "TCP port of SSH on the peers": "porta TCP do SSH nos outros nós",
    "file that this node's SSH server reads keys from; empty: as found": (
        "arquivo de onde o servidor SSH deste nó lê chaves; vazio: o encontrado"
    ),
    "every so many SIP checks of a peer, one is a real call (needs sipp); 0: never": (
        "a cada tantas verificações SIP de um nó, uma é uma chamada real (precisa do sipp); 0:"
        " nunca"
    ),
    "host of this node's database; none: it has none": (
        "host do banco de dados deste nó; none: não há"
    ),
    "TCP port of this node's database": "porta TCP do banco de dados deste nó",
    "address of the peer; empty: its name": "endereço do outro nó; vazio: o nome dele",
    "0: this node never replaces that peer": "0: este nó nunca substitui aquele",
    "TCP port of SSH on that peer; empty: ha.default.ssh_port": (
        "porta TCP do SSH naquele nó; vazio: ha.default.ssh_port"
    ),
    "user on that peer; empty: ha.default.ssh_user": (
        "usuário naquele nó; vazio: ha.default.ssh_user"
    ),
    "processor use that harms operation; 0: not watched": (
        "uso do processador que prejudica a operação; 0: não observado"
    ),
    "for so many seconds": "durante tantos segundos",
    "memory use that harms operation; 0: not watched": (
        "uso da memória que prejudica a operação; 0: não observado"
    ),
    "use of a file system that harms operation; 0: not watched": (
        "uso de um sistema de arquivos que prejudica a operação; 0: não observado"
    ),
    "load average per processor that harms operation; 0: off": (
        "carga média por processador que prejudica a operação; 0: não observada"
    ),
    "degrees Celsius that harm operation; 0: off": (
        "graus Celsius que prejudicam a operação; 0: não observados"
    ),
    "file systems that are watched, by any path on them": (
        "sistemas de arquivos observados, por qualquer caminho neles"
    ),
    "rhythm of the full synchronisation with all peers": (
        "ritmo da sincronização completa com todos os nós"
    ),
    "how far clocks may differ before synchronisation is held": (
        "quanto os relógios podem diferir até que a sincronização seja retida"
    ),
    "rhythm of reading every synchronised file to find damage; 0: never": (
        "ritmo da leitura de todos os arquivos sincronizados em busca de danos; 0: nunca"
    ),
    "0: nothing is synchronised with that peer": "0: nada é sincronizado com aquele nó",
    "files, directories and patterns of the item; empty: as built in": (
        "arquivos, diretórios e padrões do item; vazio: os de fábrica"
    ),
    "names, or whole paths, that are left out": "nomes, ou caminhos inteiros, que ficam de fora",
    "command that is run once for each batch of received files": (
        "comando executado uma vez para cada lote de arquivos recebidos"
    ),
    "what this node does: both, only send, only receive, or none": (
        "o que este nó faz: ambos (both), só envia (send), só recebe (receive) ou nada (none)"
    ),
    "of the database: collections that are synchronised (database.collection, * allowed); all": (
        "do banco de dados: coleções sincronizadas (banco.coleção, * permitido); todas"
    ),
    "of the database: collections that never wait behind others": (
        "do banco de dados: coleções que nunca esperam por outras"
    ),
    "of the database: days for which deletes are remembered for a node that is away": (
        "do banco de dados: dias em que exclusões são lembradas para um nó ausente"
    ),
    "of the database: 1: dropping a whole database spreads; 0: it comes back from the peers": (
        "do banco de dados: 1: apagar um banco inteiro se propaga; 0: ele volta dos outros nós"
    ),
    "days after which files of the item are removed on this node; 0: never": (
        "dias após os quais arquivos do item são removidos neste nó; 0: nunca"
    ),
    "MB that files of the item may fill on this node, the oldest go first; 0: no limit": (
        "MB que os arquivos do item podem ocupar neste nó, os mais antigos saem primeiro; 0: sem"
        " limite"
    ),
    "Console Servers in order of preference": "Console Servers em ordem de preferência",
    "how long an answer may take before the next server is tried": (
        "quanto uma resposta pode demorar até que o próximo servidor seja tentado"
    ),
    "unanswered requests in a row before the next server is tried": (
        "pedidos seguidos sem resposta até que o próximo servidor seja tentado"
    ),
    "rhythm of the tests of the other servers": "ritmo dos testes dos outros servidores",
    "rhythm of the requests on the active connection; 0: timeout / (lost_packets + 1)": (
        "ritmo dos pedidos na conexão ativa; 0: timeout / (lost_packets + 1)"
    ),
    "when to go back to a better server of the list that is well again": (
        "quando voltar a um servidor melhor da lista que se recuperou"
    ),
    "how long that server must have been well by then": (
        "há quanto tempo esse servidor deve estar bem"
    ),
    "how long to wait for a standby to become active before the next server is tried": (
        "quanto esperar que um nó em espera se torne ativo até que o próximo seja tentado"
    ),
    "the first attempt after a failure comes at any moment within this time": (
        "a primeira tentativa após uma falha vem em qualquer momento deste tempo"
    ),
    "TCP port of the servers": "porta TCP dos servidores",
    "name of this console; empty: the host name": "nome deste console; vazio: o nome do host",
    "queues monitored from the login on, separated by commas or blanks": (
        "filas monitoradas desde a entrada, separadas por vírgulas ou espaços"
    ),
    "SIP address of this console, a sip: or sips: URI": (
        "endereço SIP deste console, uma URI sip: ou sips:"
    ),
    "address to listen on; empty: all": "endereço em que atende; vazio: todos",
    "TCP port of the Console Server": "porta TCP do Console Server",
    "connections served at the same time": "conexões atendidas ao mesmo tempo",
    "required: only enrolled consoles log in; optional: unknown ones, too": (
        "required: só consoles cadastrados entram; optional: também desconhecidos"
    ),
    "Conference Servers for the calls that consoles make: local, or names of nodes": (
        "Conference Servers para as chamadas que os consoles fazem: local, ou nomes de nós"
    ),
    "how such calls are spread over them": "como essas chamadas são distribuídas entre eles",
    "address to serve SIP on; empty: all": "endereço em que o SIP é atendido; vazio: todos",
    "UDP and TCP port of SIP": "porta UDP e TCP do SIP",
    "TCP port of SIP over TLS with the node's certificate; 0: none": (
        "porta TCP do SIP sobre TLS com o certificado do nó; 0: nenhuma"
    ),
    "UDP and TCP port of SIP for calls taken over from another node without Replaces (TLS: the"
    " next one); 0: none": (
        "porta UDP e TCP do SIP para chamadas assumidas de outro nó sem Replaces (TLS: a"
        " seguinte); 0: nenhuma"
    ),
    "address that media is sent from; empty: the address of SIP": (
        "endereço de onde a mídia é enviada; vazio: o endereço do SIP"
    ),
    "codecs offered, best first": "codecs oferecidos, o melhor primeiro",
    "calls at the same time; more are answered 503; 0: no limit": (
        "chamadas ao mesmo tempo; outras recebem 503; 0: sem limite"
    ),
    "how long after activation calls wait for consoles that are still arriving": (
        "quanto tempo, após a ativação, as chamadas esperam por consoles que ainda chegam"
    ),
    "what the first party of a call that moves here hears while the others are on their way": (
        "o que o primeiro participante de uma chamada que muda para cá ouve enquanto os outros"
        " estão a caminho"
    ),
    "how long a gateway may take to ring before the next one is tried": (
        "quanto um gateway pode demorar a chamar até que o próximo seja tentado"
    ),
    "directory of the recordings; empty: Asterisk's volatile one, lost at a reboot": (
        "diretório das gravações; vazio: o volátil do Asterisk, perdido ao reiniciar"
    ),
    "address:port that gets a copy of the audio of recorded calls by RTP; empty: none": (
        "endereço:porta que recebe por RTP uma cópia do áudio das chamadas gravadas; vazio: nenhum"
    ),
    "who sends the audio to the recorder: this server, or the consoles by themselves": (
        "quem envia o áudio ao gravador: este servidor, ou as consoles por si mesmas"
    ),
    "HTTP URL that is told of the recorder's sessions; empty: nobody": (
        "URL HTTP avisada das sessões do gravador; vazio: ninguém"
    ),
    "destination number; empty: the name of the section": (
        "número de destino; vazio: o nome da seção"
    ),
    "in which order consoles ring": "em que ordem os consoles tocam",
    "how long consoles are rung before the overflow": (
        "quanto tempo os consoles tocam antes do transbordo"
    ),
    "how long each one is rung where one rings after the other": (
        "quanto tempo cada um toca quando tocam um após o outro"
    ),
    "number of the next queue; empty: refuse the call": (
        "número da próxima fila; vazio: recusar a chamada"
    ),
    "which calls are taken over first: the higher number": (
        "quais chamadas são assumidas primeiro: o número maior"
    ),
    "1: every call of the queue is recorded": "1: toda chamada da fila é gravada",
    "host name or address of the gateway": "nome ou endereço do gateway",
    "SIP port of the gateway": "porta SIP do gateway",
    "how SIP is carried to it": "como o SIP é levado até ele",
    "user for digest authentication; empty: none": (
        "usuário para a autenticação digest; vazio: nenhum"
    ),
    "password of that user": "senha desse usuário",
    "codecs offered to it, best first; empty: those of the section 'conference'": (
        "codecs oferecidos a ele, o melhor primeiro; vazio: os da seção 'conference'"
    ),
    "0: the gateway does not know Replaces; its calls are taken over by adoption": (
        "0: o gateway não conhece Replaces; suas chamadas são assumidas por adoção"
    ),
    "1: `ha check` sends it an INVITE that replaces no call, to see that it knows Replaces; one"
    " that does not may ring a phone for a moment": (
        "1: `ha check` lhe envia um INVITE que não substitui chamada alguma, para ver se conhece"
        " Replaces; um que não conhece pode tocar um telefone por um momento"
    ),
    "numbers that begin so take this route": "números que começam assim tomam esta rota",
    "numbers like this take it: X 0-9, Z 1-9, N 2-9, [1-5], final . or !; wins over prefix": (
        "números como este a tomam: X 0-9, Z 1-9, N 2-9, [1-5], . ou ! ao final; prevalece sobre"
        " prefix"
    ),
    "characters taken from the front of the number": "caracteres retirados do início do número",
    "what is put in front of it then": "o que se põe então na frente dele",
    "gateways in the order in which they are tried": "gateways na ordem em que são tentados",
}

EXPECTED = {
    "one line of text": "uma linha de texto",
    "the password of the cluster": "a senha do cluster",
    "a name of letters, digits, '_', '-' and '.'": "um nome de letras, dígitos, '_', '-' e '.'",
    "0 or 1": "0 ou 1",
    "a whole number": "um número inteiro",
    "a number of seconds": "um número de segundos",
    "a percentage": "uma porcentagem",
    "a number": "um número",
    "a port from 1 to 65535": "uma porta de 1 a 65535",
    "a host name or an IP address": "um nome de host ou um endereço IP",
    "host names or IP addresses, separated by commas or blanks": (
        "nomes de host ou endereços IP, separados por vírgulas ou espaços"
    ),
    "names, separated by commas or blanks": "nomes, separados por vírgulas ou espaços",
    "an absolute path": "um caminho absoluto",
    "absolute paths, separated by commas or blanks": (
        "caminhos absolutos, separados por vírgulas ou espaços"
    ),
    "patterns of file names, separated by commas or blanks": (
        "padrões de nomes de arquivos, separados por vírgulas ou espaços"
    ),
}
_RANGE = re.compile(r"(.*) from (\S+) to (\S+)\Z")


def text_of(row: OptionRow) -> str:
    """Return what an option is; a text without translation stays English."""
    return TEXTS.get(row.text, row.text)


def expected_of(row: OptionRow, expectation: str) -> str:
    """Return in words what a value must be; ``expectation`` is the same in English."""
    if row.choices:
        return expectation.replace(" or ", " ou ")
    if expectation in EXPECTED:
        return EXPECTED[expectation]
    found = _RANGE.match(expectation)
    if found is None or found[1] not in EXPECTED:
        return expectation
    return f"{EXPECTED[found[1]]} de {found[2]} a {found[3]}".replace(".", ",")
