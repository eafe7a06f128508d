"""Every sentence a decision can give, in English and Brazilian Portuguese.

A row is ``code: (English, Portuguese)``; ``{name}`` stands for a parameter of the reason. The
sentences are complete: what is the case and because of what.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

SENTENCES: Final[dict[str, tuple[str, str]]] = {
    "starting": (
        "starting: reading what runs and what was decided before",
        "iniciando: lendo o que está em execução e o que já foi decidido",
    ),
    "role_passive": (
        "role passive: holds data, never runs Console Server or Conference Server",
        "função passive: guarda dados, nunca executa Console Server nem Conference Server",
    ),
    "role_master": (
        "role master: active from the start",
        "função master: ativo desde o início",
    ),
    "role_slave": (
        "role slave: waits for a peer to fail",
        "função slave: aguarda a falha de um peer",
    ),
    "adopted": (
        "was {state} before `ha` restarted and its services still run",
        "estava {state} antes do reinício de `ha` e seus serviços continuam em execução",
    ),
    "forced_passive": (
        "forced passive by {by} until `ha resume`",
        "forçado a passivo por {by} até `ha resume`",
    ),
    "forced_active": (
        "forced active by {by} until `ha resume`",
        "forçado a ativo por {by} até `ha resume`",
    ),
    "resumed": (
        "released from a forced state by {by}",
        "liberado de um estado forçado por {by}",
    ),
    "paused": (
        "paused by {by}: no automatic change of state until `ha resume`",
        "pausado por {by}: nenhuma mudança automática de estado até `ha resume`",
    ),
    "peer_failed": (
        "{peer} failed: its services refuse and its `ha` does not answer",
        "{peer} falhou: seus serviços recusam conexões e seu `ha` não responde",
    ),
    "peer_silent": (
        "{peer} is silent to this node and to {witnesses}: taken as failed",
        "{peer} está em silêncio para este nó e para {witnesses}: considerado em falha",
    ),
    "peer_silent_two_nodes": (
        "{peer} is silent and there is no third node to ask: dead or cut off, activating is"
        " harmless",
        "{peer} está em silêncio e não há terceiro nó para perguntar: parado ou isolado,"
        " ativar não causa dano",
    ),
    "site_silent_no_active": (
        "{peer} is silent with its whole site and no active node is left on this side",
        "{peer} está em silêncio com todo o seu site e não resta nó ativo deste lado",
    ),
    "peer_service_failed": (
        "{service} of {peer} does not answer and its `ha` is not there to recover it",
        "{service} de {peer} não responde e seu `ha` não está presente para recuperá-lo",
    ),
    "service_failed_here": (
        "{service} of {peer} does not answer this node, but {witness} hears its `ha`, whose word"
        " counts",
        "{service} de {peer} não responde a este nó, mas {witness} ouve seu `ha`, cuja palavra"
        " vale",
    ),
    "peer_yielded": (
        "{peer} disabled its Console Server: {why}",
        "{peer} desativou seu Console Server: {why}",
    ),
    "peer_forced_passive": (
        "{peer} was forced passive",
        "{peer} foi forçado a passivo",
    ),
    "waiting_rank": (
        "{peer} needs a replacement; {better} ranks before this node, which waits {wait} s",
        "{peer} precisa de substituto; {better} tem prioridade sobre este nó, que aguarda {wait} s",
    ),
    "covered_by": (
        "{peer} is not serving; {node} is active for it",
        "{peer} não está em serviço; {node} está ativo em seu lugar",
    ),
    "not_eligible": (
        "{peer} is not serving, but this node may not take over: {why}",
        "{peer} não está em serviço, mas este nó não pode assumir: {why}",
    ),
    "isolated": (
        "isolated: none of the {count} peers can be reached, so none of them is judged",
        "isolado: nenhum dos {count} peers pode ser alcançado, portanto nenhum é julgado",
    ),
    "site_silent": (
        "{peers} are silent together: a site or the path to it is down; {active} is active here",
        "{peers} estão em silêncio juntos: um site ou o caminho até ele caiu; {active} está ativo"
        " aqui",
    ),
    "minority": (
        "{peers} silent; with {reached} of {members} nodes this side is no majority and judges"
        " nobody",
        "{peers} em silêncio; com {reached} de {members} nós este lado não é maioria e não julga"
        " ninguém",
    ),
    "path_cut": (
        "{peer} is silent to this node, but {witness} sees it: the path is cut, the node lives",
        "{peer} está em silêncio para este nó, mas {witness} o vê: o caminho caiu, o nó está vivo",
    ),
    "confirming": (
        "{peer} is suspected; asking the others before judging it",
        "{peer} está sob suspeita; perguntando aos outros antes de julgá-lo",
    ),
    "all_fine": (
        "role {role}: every monitored node serves",
        "função {role}: todos os nós monitorados estão em serviço",
    ),
    "still_covering": (
        "active for {peers}, not back and stable yet",
        "ativo no lugar de {peers}, que ainda não voltou de forma estável",
    ),
    "failback_wait": (
        "{peers} is back; standby again in {wait} s",
        "{peers} voltou; em espera novamente em {wait} s",
    ),
    "failback_flapping": (
        "{peers} has come back {returns} times lately and is trusted less; standby again in {wait}"
        " s",
        "{peers} voltou {returns} vezes recentemente e merece menos confiança; em espera novamente"
        " em {wait} s",
    ),
    "failback_busy": (
        "{peers} is back; standby again when the last of {consoles} consoles and {calls} calls"
        " has left",
        "{peers} voltou; em espera novamente quando sair o último de {consoles} consoles e"
        " {calls} chamadas",
    ),
    "failback_off": (
        "{peers} is back; this node stays active (failback 0)",
        "{peers} voltou; este nó permanece ativo (failback 0)",
    ),
    "failed_back": (
        "{peers} is back and stable, no console and no call is left here",
        "{peers} voltou e está estável, não resta console nem chamada aqui",
    ),
    "abnormal_yielded": (
        "Console Server disabled: {what}; {node} can serve",
        "Console Server desativado: {what}; {node} pode atender",
    ),
    "abnormal_asking": (
        "{what}; serving on until a peer says that it can take over ({why})",
        "{what}; continua atendendo até que um peer possa assumir ({why})",
    ),
    "abnormal_second": (
        "{what}; serving on as degraded, because {other} is out of service already",
        "{what}; continua atendendo degradado, porque {other} já está fora de serviço",
    ),
    "abnormal_forced": (
        "{what}; serving on, because it was forced active by {by}",
        "{what}; continua atendendo, porque foi forçado a ativo por {by}",
    ),
    "stabilising": (
        "healthy again; Console Server comes back after {wait} s without abnormality",
        "normalizado; o Console Server volta após {wait} s sem anormalidade",
    ),
    "cover_lost": (
        "{what}; serving again, because no peer can serve instead any more",
        "{what}; atendendo novamente, porque nenhum peer pode mais atender em seu lugar",
    ),
    "recovered": (
        "healthy for {stable} s: in service again",
        "normal há {stable} s: em serviço novamente",
    ),
    "rereading": (
        "this node stood still for {gap} s; rereading what others own before acting",
        "este nó ficou parado por {gap} s; relendo o que pertence aos outros antes de agir",
    ),
    "released": (
        "left the cluster on purpose",
        "saiu do cluster de propósito",
    ),
    # Abnormalities of the node itself (the {what} of the sentences above).
    "console_down": (
        "Console Server does not run ({detail})",
        "o Console Server não está em execução ({detail})",
    ),
    "console_mute": (
        "Console Server does not answer ({detail})",
        "o Console Server não responde ({detail})",
    ),
    "conference_down": (
        "Conference Server does not run ({detail})",
        "o Conference Server não está em execução ({detail})",
    ),
    "conference_mute": (
        "Conference Server does not answer SIP ({detail})",
        "o Conference Server não responde a SIP ({detail})",
    ),
    # Abnormalities of the host.
    "host_cpu": (
        "processor {value} % busy for {duration} s (limit {limit} %)",
        "processador {value} % ocupado por {duration} s (limite {limit} %)",
    ),
    "host_memory": (
        "memory {value} % used for {duration} s (limit {limit} %)",
        "memória {value} % usada por {duration} s (limite {limit} %)",
    ),
    "host_disk": (
        "disk of {subject} {value} % full for {duration} s (limit {limit} %)",
        "disco de {subject} {value} % cheio por {duration} s (limite {limit} %)",
    ),
    "host_load": (
        "load {value} per core for {duration} s (limit {limit})",
        "carga {value} por núcleo por {duration} s (limite {limit})",
    ),
    "host_temperature": (
        "temperature {value} °C at {subject} for {duration} s (limit {limit} °C)",
        "temperatura {value} °C em {subject} por {duration} s (limite {limit} °C)",
    ),
    "host_lateness": (
        "this node's own timers are {value} s late for {duration} s (limit {limit} s)",
        "os temporizadores deste nó atrasam {value} s por {duration} s (limite {limit} s)",
    ),
    "host_storage_full": (
        "disk full: {path} takes no more data",
        "disco cheio: {path} não aceita mais dados",
    ),
    "host_storage_read_only": (
        "disk of {path} is read-only",
        "o disco de {path} está somente para leitura",
    ),
    "host_storage_hanging": (
        "disk of {path} does not answer ({detail})",
        "o disco de {path} não responde ({detail})",
    ),
    "host_storage": (
        "{path} cannot be written ({detail})",
        "não é possível gravar em {path} ({detail})",
    ),
    # Why a node may not take over.
    "own_passive": ("it is passive", "ele é passivo"),
    "own_paused": ("it is paused", "ele está pausado"),
    "own_links": ("its own network is down", "sua própria rede está fora"),
    "own_late": (
        "it is late on its own timers",
        "ele está atrasado em seus próprios temporizadores",
    ),
    "own_abnormal": ("it is abnormal itself: {what}", "ele mesmo está anormal: {what}"),
    "calls_taken": (
        "took {up} of {calls} calls of {peer} ({ground}); legs: {legs}",
        "assumiu {up} de {calls} chamadas de {peer} ({ground}); pernas: {legs}",
    ),
    "calls_given": (
        "hands its {calls} live calls over before it stops serving",
        "entrega suas {calls} chamadas em curso antes de parar de atender",
    ),
    "calls_handed_over": (
        "{moved} of {calls} calls have moved to other nodes",
        "{moved} de {calls} chamadas passaram a outros nós",
    ),
    "lost_calls_given": (
        "its Conference Server died and did not take {calls} calls up again in time: others may",
        "seu Conference Server morreu e não retomou {calls} chamadas a tempo: outros podem",
    ),
    "call_moved": (
        "{call} is a call of {peer} now: what is here of it is dropped",
        "{call} agora é uma chamada de {peer}: o que há dela aqui é descartado",
    ),
    "takes_calls": (
        "takes the live calls of {peer} ({why})",
        "assume as chamadas em curso de {peer} ({why})",
    ),
    "peer_not_licensed": (
        "{peer} is a master without a licence CO-LICE-HA: nobody takes over from it",
        "{peer} é um master sem licença CO-LICE-HA: ninguém assume por ele",
    ),
    "expelled": (
        "{peer} is expelled from the cluster, key {key}: {why}",
        "{peer} foi expulso do cluster, chave {key}: {why}",
    ),
    "key_changed": (
        "this node uses key {key} now; {last} counts, too, for a while",
        "este nó usa agora a chave {key}; {last} também vale por algum tempo",
    ),
    "not_licensed": ("licence CO-LICE-HA is missing", "falta a licença CO-LICE-HA"),
    "no_cover": ("no reachable peer covers this node", "nenhum peer alcançável cobre este nó"),
    "would_take_over": (
        "nothing: this node would take over from {peer}",
        "nada: este nó assumiria o lugar de {peer}",
    ),
    "nobody_takes_over": (
        "nobody would take over from {peer}",
        "ninguém assumiria o lugar de {peer}",
    ),
    "plan_not_asked": (
        "{node} did not answer: its row is what its last report lets expect",
        "{node} não respondeu: sua linha é o que seu último relatório permite esperar",
    ),
    "pause_continues": (
        "still going on: monitoring, links, status; services are kept running as they are",
        "continua: monitoramento, conexões, estado; os serviços são mantidos como estão",
    ),
    "not_monitored": (
        "{peer} is not in this node's list of monitored peers",
        "{peer} não está na lista de peers monitorados deste nó",
    ),
    "already_active": ("it is {state} already", "ele já está {state}"),
    "better_rank": (
        "{better} ranks before this node for {peer}",
        "{better} tem prioridade sobre este nó para {peer}",
    ),
    # Verdicts on a peer.
    "never_answered": (
        "never answered since it was configured: see `ha check`",
        "nunca respondeu desde que foi configurado: veja `ha check`",
    ),
    "alive": ("its `ha` answers", "seu `ha` responde"),
    "not_missed": (
        "{peer} is away, but was in standby: nobody has to replace it",
        "{peer} está ausente, mas estava em espera: ninguém precisa substituí-lo",
    ),
    "never_heard": (
        "{peer} is away and has never said on a link what it is: see `ha check`",
        "{peer} está ausente e nunca informou por uma conexão o que é: veja `ha check`",
    ),
    "suspect": (
        "late or partly failing, being probed fast",
        "atrasado ou com falha parcial, em verificação",
    ),
    "silent": ("no answer on any path", "nenhuma resposta por nenhum caminho"),
    "failed": (
        "its services refuse or do not answer, its `ha` is gone",
        "seus serviços recusam ou não respondem, seu `ha` sumiu",
    ),
    "service_failed": (
        "a service fails and its `ha` is not there to recover it",
        "um serviço falha e seu `ha` não está presente para recuperá-lo",
    ),
    "no_daemon": (
        "services answer, `ha` there does not",
        "os serviços respondem, mas o `ha` dele não",
    ),
    "calls_released": (
        "{peer} gives its calls away",
        "{peer} entrega suas chamadas",
    ),
    "calls_refused": (
        "the SIP port of {peer} refuses and nobody hears its `ha`: its calls have ended there",
        "a porta SIP de {peer} recusa e ninguém ouve seu `ha`: suas chamadas terminaram lá",
    ),
    "calls_confirmed": (
        "{peer} is silent to two nodes, and {witness} stands at its site",
        "{peer} está em silêncio para dois nós, e {witness} está no mesmo local que ele",
    ),
    "calls_chosen": (
        "{peer} is silent, and takeover_on_silence is take",
        "{peer} está em silêncio, e takeover_on_silence é take",
    ),
    "calls_console": (
        "a console of {peer} arrived and says that it lost that server",
        "um console de {peer} chegou e informa que perdeu esse servidor",
    ),
    "calls_seen": (
        "{witness} sees {peer}: its calls stay there",
        "{witness} vê {peer}: as chamadas ficam lá",
    ),
    "calls_unconfirmed": (
        "{peer} is silent, but nobody at its site confirms it: its calls may go on",
        "{peer} está em silêncio, mas ninguém no seu local o confirma: as chamadas podem seguir",
    ),
    "calls_unstable": (
        "{peer} is silent, but it was so a moment ago and returned: its calls may go on",
        "{peer} está em silêncio, mas já esteve há pouco e voltou: as chamadas podem seguir",
    ),
    "calls_asking": (
        "{peer} is silent, but {nodes} has yet to say so: its calls may go on",
        "{peer} está em silêncio, mas {nodes} ainda não o disse: as chamadas podem seguir",
    ),
    "calls_unseen": (
        "{peer} is silent, but others watch {nodes}, unknown here: a cut may look the same",
        "{peer} está em silêncio, mas outros vigiam {nodes}, aqui desconhecido: pode ser um corte",
    ),
    "calls_unproven": (
        "nothing proves that the Conference Server of {peer} has ended",
        "nada prova que o Conference Server de {peer} terminou",
    ),
}

LANGUAGES: Final = ("en", "pt_BR")


def sentence(code: str, params: Mapping[str, Any], language: str = "en") -> str | None:
    """Return the sentence of ``code`` with ``params`` filled in; None when the code is unknown.

    A missing parameter is shown as its name in braces rather than failing: a reason must reach the
    person even when two versions of the product disagree about its parameters.
    """
    row = SENTENCES.get(code)
    if row is None:
        return None
    template = row[1] if language.lower().startswith("pt") else row[0]
    return template.format_map(_Lenient(params))


class _Lenient(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "{" + key + "}"
