"""Os textos do comando `ha` em português do Brasil. Same keys and parameters as ``texts_en``."""

from __future__ import annotations

from controlone_ha.control.texts_trust_pt import TEXTS as TRUST

TEXTS: dict[str, str] = {
    "never": "nunca",
    "yes": "sim",
    "no": "não",
    # Words of the API: roles and service names are settings and stay as they are.
    "state.starting": "iniciando",
    "state.active": "ativo",
    "state.degraded": "degradado",
    "state.disabled": "desativado",
    "state.standby": "em espera",
    "state.passive": "passivo",
    "state.unknown": "desconhecido",
    "verdict.alive": "vivo",
    "verdict.suspect": "suspeito",
    "verdict.silent": "silêncio",
    "verdict.failed": "em falha",
    "verdict.unknown": "incerto",
    "verdict.refused": "recusado",
    "verdict.service_failed": "falhando",
    "verdict.no_daemon": "sem `ha`",
    "service.serving": "em serviço",
    "service.disabled": "desativado",
    "service.stopped": "parado",
    "service.frozen": "congelado",
    "service.failed": "em falha",
    "service.unknown": "desconhecido",
    "link.up": "ativo",
    "link.connecting": "conectando",
    "link.refused": "recusado",
    "link.down": "fora",
    "link.unpaired": "não pareado",
    "sync.in sync": "em dia",
    "sync.pending": "pendente",
    "sync.held": "retido",
    "sync.never": "nunca",
    "sync.scanning": "examinando os arquivos de {items} …",
    "sync.progress": "{files}/{files_total} arquivos, {done}/{total}, {rate}/s",
    "sync.remaining": "faltam cerca de {seconds} s",
    "sync.moved": "{files} arquivos, {size} transferidos",
    "sync.equal": "em dia",
    "sync.no_peers": "nenhum peer com quem sincronizar",
    "sync.finished": "{items}: concluído em {seconds} s",
    "diff.equal": "nada difere de {peer}",
    "diff.only_here": "só aqui",
    "diff.only_there": "só em {peer}",
    "diff.deleted_here": "apagado aqui, mantido em {peer}",
    "diff.deleted_there": "mantido aqui, apagado em {peer}",
    "diff.newer_here": "mais novo aqui",
    "diff.newer_there": "mais novo em {peer}",
    "diff.here": "aqui",
    "conflicts.none": "nada foi perdido em conflitos",
    "conflicts.edit": "{node}, {moment}",
    "conflicts.conflict": "perdeu para a edição de {node} de {moment}, que não a conhecia",
    "conflicts.damaged": "danificado no disco, substituído pela versão de {node} de {moment}",
    "conflicts.replaced": "substituído pela versão de {node} de {moment}",
    "conflicts.copy": "a cópia: {node}, {moment}",
    "conflicts.present": "o arquivo como está",
    "conflicts.same": "nada difere",
    "conflicts.restored": "{path} voltou a ser o que {node} fez dele em {moment}; os peers o "
    "recebem como edição deste nó",
    "column.id": "ID",
    "column.kept": "GUARDADO EM",
    "column.path": "ARQUIVO",
    "column.size": "TAMANHO",
    "column.version": "VERSÃO PERDIDA",
    "column.why": "MOTIVO",
    "database.forgotten": "{peer} foi esquecido: {released} notas de sua leitura foram removidas",
    "database.progress": "{done} documentos, {rate}/s, faltam {remaining}",
    "database.synced": "em dia, {applied} documentos recebidos em {seconds} s",
    "database.missing_here": "só em {peer}",
    "database.missing_there": "só aqui",
    "database.newer_here": "mais novos aqui",
    "database.newer_there": "mais novos em {peer}",
    "database.state": "banco de dados: {state}",
    "database.peer": "{peer}: {state}, em dia pela última vez {since}, atraso {lag} ms, "
    "fila {backlog}, conflitos {conflicts}",
    "database.no_conflicts": "nenhum conflito",
    "database.conflict": "{at}  {namespace} {document}: {won} venceu {lost} ({id})",
    "database.password": "senha do administrador do banco de dados: ",
    "database.unreachable": "não foi possível preparar o banco de dados: {reason}. "
    "O mongod.conf precisa de:",
    "database.right": "o banco de dados está como deve",
    "outcome.answered": "respondeu",
    "outcome.timeout": "sem resposta",
    "outcome.refused": "recusado",
    "outcome.unreachable": "inalcançável",
    "outcome.rejected": "resposta errada",
    "path.direct": "direto",
    "path.own": "próprio",
    "path.via": "por {node}",
    "evidence.age": "{age} antes",
    # Columns and labels.
    "column.node": "NÓ",
    "column.role": "FUNÇÃO",
    "column.state": "ESTADO",
    "column.since": "HÁ",
    "column.link": "ENLACE",
    "column.rtt": "RTT",
    "column.skew": "DESVIO",
    "column.config": "CONFIG",
    "column.data": "DADOS",
    "column.service": "SERVIÇO",
    "column.pid": "PID",
    "column.call": "CHAMADA",
    "column.queue": "FILA",
    "column.parties": "PARTES",
    "column.recording": "GRAV",
    "column.protected": "PROTEGIDA POR",
    "calls.none": "nenhuma chamada ativa",
    "calls.no_takeovers": "nenhuma chamada foi assumida",
    "column.from": "DE",
    "column.by": "POR",
    "column.ground": "MOTIVO",
    "column.taken": "ASSUMIDAS",
    "column.longest": "MAIS LONGA",
    "column.legs": "PERNAS",
    "calls.unheard": "o Conference Server deste nó não responde; o mostrado pode ser antigo",
    "calls.nobody": "ninguém",
    "call.queued": "na fila",
    "call.ringing": "tocando",
    "call.up": "em curso",
    "call.held": "em espera",
    "call.lost": "perdida",
    "column.console": "CONSOLE",
    "console.pending": "pede cadastro",
    "console.connected": "conectado",
    "console.enrolled": "não está aqui",
    "console.not_enrolled": "conectado, sem cadastro",
    "console.is_revoked": "revogado",
    "console.none": "nenhum console cadastrado, conectado ou à espera",
    "console.optional": "a autenticação é opcional: consoles sem cadastro também entram",
    "console.approved": "{console} está cadastrado",
    "console.revoked": "a credencial de {console} foi revogada",
    "column.restarts": "REINÍCIOS",
    "column.detail": "DETALHE",
    "label.because": "Motivo",
    "label.node": "Nó",
    "label.key": "Chave",
    "label.forced": "Forçado",
    "label.paused": "Pausado",
    "label.abnormal": "Anormal",
    # ha status
    "status.head": "{node}: função {role}, {state}",
    "status.since": " há {age}, desde {moment}",
    "status.forced": "{state}, até `ha resume`",
    "status.paused": "por {by} desde {moment}, nenhuma mudança automática até `ha resume`",
    "status.abnormal": "{what} (há {age})",
    "status.address": "endereço {value}",
    "status.site": "site {value}",
    "status.priority": "prioridade {value}",
    "status.version": "versão {value}",
    "status.started": "`ha` no ar há {age}",
    "status.no_peers": "Nenhum peer configurado (opção peers de /etc/config/ha).",
    "status.remedy": "→ {remedy}",
    "note.for": "{text} há {age}",
    "note.last_state": ", visto por último {state}",
    "note.link": "enlace {state}",
    "note.held_config": "configuração retida: {reason}",
    "note.held_data": "dados retidos: {reason}",
    # Usage and the daemon
    "error.missing": "`ha {command}` precisa de um argumento",
    "error.conflicts_action": "`ha conflicts`: {word!r}? nada, diff ID ou restore ID",
    "error.console_action": "`ha console`: {word!r}? list, approve NOME CÓDIGO ou revoke NOME",
    "error.too_many": "`ha {command}`: {word!r} é um argumento a mais",
    "error.database_order": "o banco de dados não tem a ordem {word!r}: status, setup ou conflicts",
    "error.unknown_command": "não existe o comando {word!r}",
    "error.nearest": "; seria `{word}`?",
    "error.unknown_option": "`ha {command}` não tem a opção {word}",
    "error.no_value": "{word} não aceita valor",
    "error.needs_value": "{word} precisa de um valor",
    "error.number": "{word}: recebido {value!r}, esperado um número acima de 0, até 10000",
    "error.hint": "veja `ha help`",
    "daemon.absent": "o daemon não está em execução (`service ha start`)",
    "daemon.silent": (
        "o daemon está em execução mas não responde: pode estar congelado (`service ha restart`)"
    ),
    "daemon.denied": "permissão negada: somente root pode perguntar ao daemon",
    "daemon.no_status": "ele não escreveu nenhum status desde que o nó iniciou",
    "daemon.last_status": (
        "Último status que ele escreveu, há {age}; as idades abaixo contam até agora:"
    ),
    "column.time": "HORA",
    "column.kind": "TIPO",
    "column.peer": "PEER",
    "column.event": "O QUÊ E POR QUÊ",
    "column.now": "AGORA",
    "column.then": "DEPOIS",
    "column.after": "APÓS",
    "column.because": "MOTIVO",
    "column.outcome": "RESULTADO",
    "column.address": "ENDEREÇO",
    "column.direction": "ABERTO",
    "kind.state": "estado",
    "kind.peer": "peer",
    "kind.service": "serviço",
    "kind.force": "forçado",
    "kind.pause": "pausa",
    "kind.link": "enlace",
    "kind.config": "config",
    "kind.takeover": "tomada",
    "kind.sync": "sinc",
    "kind.start": "início",
    "kind.login": "login",
    "kind.refused": "recusado",
    "kind.trust": "confiança",
    "kind.licence": "licença",
    "kind.audit": "auditoria",
    "direction.dialed": "daqui",
    "direction.accepted": "pelo peer",
    "link_code.closed": "fechado pelo outro lado",
    "link_code.reset": "a conexão foi reiniciada",
    "link_code.silent": "nenhum quadro chegou a tempo",
    "link_code.replaced": "substituído por uma conexão mais nova",
    "link_code.unpaired": "não pareado: execute `ha pair`",
    "severity.error": "Erro",
    "severity.warning": "Aviso",
    "history.empty": "Nenhum registro.",
    "history.by": " (por {by})",
    "history.unwritten": " [{count} registros anteriores se perderam]",
    "why.head": "{name}: {state}",
    "why.decisions": "Últimas decisões, a mais nova primeiro:",
    "why_not.yes": "{node} assumiria o lugar de {peer}.",
    "why_not.no": "{node} não assume o lugar de {peer}.",
    "plan.head": "Se {peer} falhasse agora:",
    "plan.stays": "permanece",
    "check.fine": "Nada está errado.",
    "check.sum": "{errors} erros, {warnings} avisos",
    "probe.head": "Testes de {peer}, a partir deste nó:",
    "keys.own": "este nó",
    "keys.key": "chave",
    "keys.certificate": "certificado",
    "keys.host_key": "chave do host",
    "keys.none": "Nenhum peer pareado: execute `ha pair PEER`.",
    "keys.no_identity": "Este nó ainda não tem chave.",
    "pair.unknown": "nenhum nó com o nome {name!r} está pareado",
    "pair.unpaired": "{name} não tem mais a confiança deste nó.",
    "outcome.state": "Este nó está {state}.",
    "outcome.continues": "Enquanto isso, como antes:",
    "reload.done": "Configuração lida novamente.",
    "error.since": (
        "--since: recebido {value!r}, esperado 30m, 2h, 1d, uma data ou segundos desde 1970"
    ),
    "help.head": "ha: estado e controle da alta disponibilidade deste nó",
    "help.tail": (
        "Sempre: --json (-j), --lang en|pt_BR, --help (-h). `ha help COMANDO` diz mais.\n"
        "Códigos de saída: 0 feito, 1 recusado ou com falha, 2 uso errado, 3 daemon "
        "fora de execução,\n"
        "4 não saudável."
    ),
    "usage.status": "ha status [-w [SEGUNDOS]] [-e]",
    "usage.history": "ha history [-n N] [--peer PEER]",
    "usage.why": "ha why [PEER]",
    "usage.why_not": "ha why-not PEER",
    "usage.plan": "ha plan PEER",
    "usage.check": "ha check",
    "usage.probe": "ha probe PEER",
    "usage.links": "ha links",
    "usage.calls": "ha calls [--takeovers]",
    "usage.sync": "ha sync [ITEM]",
    "usage.diff": "ha diff PEER [ITEM]",
    "usage.conflicts": "ha conflicts [diff|restore]",
    "usage.database": "ha database [ORDEM]",
    "usage.forget": "ha forget PEER",
    "usage.force_passive": "ha force_passive",
    "usage.force_active": "ha force_active",
    "usage.pause": "ha pause [MOTIVO]",
    "usage.resume": "ha resume",
    "usage.pair": "ha pair [USUÁRIO@]PEER[:PORTA]",
    "usage.pair_accept": "ha pair-accept",
    "usage.metrics": "ha metrics",
    "usage.console": "ha console [AÇÃO]",
    "usage.reload": "ha reload",
    "usage.events": "ha events [--kind TIPO]",
    "usage.version": "ha version",
    "usage.help": "ha help [COMANDO]",
    "help.status": (
        "este nó, seus serviços e seus peers\n"
        "-w, --watch [SEGUNDOS]  mostra de novo a cada 2 (ou SEGUNDOS) segundos e a "
        "cada transição\n"
        "-e, --exit-code         sai com 4 se nó e peers não estão saudáveis: sem "
        "anormalidade, aviso, força\n"
        "                        ou pausa, nenhum serviço em falha, todo peer vivo e "
        "com enlace, nada retido\n"
        "Com o daemon parado: o último estado que ele escreveu e há quanto tempo; sai com 3."
    ),
    "help.history": (
        "transições deste nó, a mais nova por último\n"
        "-n, --limit N     quantas (20)\n"
        "--kind TIPO       state, peer, service, force, pause, config, sync, login, refused,\n"
        "                  trust, licence, audit, takeover\n"
        "--node NÓ         de outro nó, da cópia guardada aqui; all: de todos os nós\n"
        "--who NOME        o que NOME fez, ou uma console com esse nome\n"
        "--peer PEER       as que dizem respeito a PEER\n"
        '--since QUANDO    30m, 2h, 1d, uma data (2026-01-31 ou "2026-01-31 08:00") ou '
        "segundos desde 1970\n"
        "Com o daemon parado lê-se o arquivo do nó; sai com 3."
    ),
    "help.why": (
        "por que este nó está assim (ou seu veredito sobre PEER)\n"
        "-n, --limit N     quantas decisões são mostradas"
    ),
    "help.why_not": "o que impede este nó de assumir o lugar de PEER",
    "help.plan": "o que cada nó faria se PEER falhasse agora",
    "help.check": "tudo o que está errado, com soluções; sai com 4 se houver",
    "help.probe": "testa agora os serviços de PEER; sai com 4 se algum não responde",
    "help.links": "o enlace com cada peer",
    "help.calls": "chamadas ativas: onde estão, partes, quem pode assumi-las",
    "help.sync": "sincroniza agora com todos (config, jobs, recordings, sounds)",
    "help.diff": "o que não é igual em um peer",
    "help.conflicts": (
        "versões que perderam um conflito: lista, diff ID, restore ID\n\n"
        "diff ID mostra o que difere do arquivo como está; restore ID faz da cópia uma edição\n"
        "deste nó e guarda o que ela substitui. --all (-a) lista também o que apenas foi\n"
        "substituído por uma versão mais nova. Com o daemon parado, lista e diff leem os\n"
        "arquivos; saída 3."
    ),
    "help.database": "o banco de dados: status, setup (prepara o mongod) ou conflicts",
    "help.forget": "não guarda mais exclusões para um nó que não voltará",
    "help.force_passive": "torna este nó passivo até `ha resume`",
    "help.force_active": "torna este nó ativo até `ha resume`",
    "help.pause": "nenhuma mudança automática até `ha resume`, mesmo com reinício",
    "help.resume": "encerra o que foi forçado ou pausado",
    "help.pair": (
        "troca chaves com PEER, uma vez, por um login nele\n"
        "-i, --identity ARQUIVO  chave privada para o login; senão agente, ~/.ssh e "
        "depois senha\n"
        "--fingerprint SHA256:…  chave de host certa de PEER; senão é mostrada e perguntada\n"
        "--accept-host-key       acredita em qualquer chave de host (um cabo entre os "
        "dois, nada mais)\n"
        "Depois os dois nós confiam um no outro; o resto do cluster é apresentado pelo "
        "enlace."
    ),
    "help.pair_accept": "o outro lado de `ha pair`: entra uma oferta, sai a deste nó",
    "help.metrics": "texto OpenMetrics",
    "help.console": (
        "consoles: conectados, cadastrados, à espera\n\n"
        "AÇÃO: list, approve NOME CÓDIGO ou revoke NOME.\n"
        "`console enrol SERVIDOR`, no console, mostra o código. Um console\n"
        "revogado é dispensado na hora, e pelos outros nós quando recebem a mudança."
    ),
    "help.reload": "lê a configuração novamente",
    "help.events": "acompanha as transições até ser interrompido",
    "help.version": "versão do produto",
    "help.help": "esta lista, ou mais sobre um comando",
    "state.paused": "pausado",
    "history.refused": "{to} recusado: {text}",
    "pair.host_key": (
        "{host} porta {port} mostra a chave de host {fingerprint} ({kind}).\n"
        "Compare com o que aquele nó diz de si (`ha keys`, ou ssh-keygen -l nele)."
    ),
    "pair.confirm": "Está certa? (sim/não)",
    "pair.yes": "sim s yes y",
    "pair.offer": (
        "A oferta é do nó {name}, impressão digital {fingerprint}.\n"
        "Compare com o que `ha pair-export` disse nele."
    ),
    "pair.not_confirmed": "não confirmada; compare e use --fingerprint {fingerprint}",
    "pair.exported": (
        "impressão digital desta oferta: {fingerprint}\n"
        "ha: leve-a ao outro nó (`ha pair-import ARQUIVO`) e traga a oferta dele para cá"
    ),
    "pair.done": "Pareado com {name} ({address}), chave {key}.",
    "pair.replaced": "{name} tinha outra chave antes: {key}.",
    "pair.not_listed": (
        "{name} ainda não está em ha.default.peers deste nó: não é monitorado nem tem enlace."
    ),
    "usage.pair_export": "ha pair-export",
    "usage.pair_import": "ha pair-import ARQUIVO",
    "help.pair_export": "a oferta deste nó, para parear sem login",
    "help.pair_import": (
        "aceita a oferta de outro nó em ARQUIVO (- é stdin)\n"
        "--fingerprint SHA256:…  o que `ha pair-export` disse lá; senão é mostrada e "
        "perguntada"
    ),
    "link_code.wrong_secret": "o segredo difere",
    "link_code.unknown_key": "o outro lado não conhece a chave deste nó",
    "link_code.unknown_host_key": "a chave de host SSH do peer não é a fixada",
    "link_code.unknown_node": "os dois nós não estão pareados",
    "link_code.version": "as versões não conseguem falar entre si",
    "link_code.protocol": "o protocolo foi violado",
    "link_code.trust": "as chaves fixadas não podem ser usadas",
    "link_code.refused": "recusado",
    "link_code.no_daemon": "`ha` não está em execução lá",
    "link_code.stopping": "`ha` está parando lá",
    "link_code.busy": "tentativas demais ao mesmo tempo",
    "link_code.ssh": "SSH falhou",
    "finding.weak_secret": "o segredo do cluster é fraco",
    "remedy.weak_secret": (
        "defina um ha.default.secret mais longo em todos os nós e execute `service ha restart`"
    ),
    "finding.no_peers": (
        "ha.default.peers está vazio: este nó não monitora ninguém e ninguém é chamado a cobri-lo"
    ),
    "remedy.no_peers": "uci set ha.default.peers=…; uci commit; service ha restart",
    "finding.unpaired": "{peer} não está pareado: nenhuma chave dele está fixada aqui",
    "remedy.unpaired": "ha pair {address}",
    "finding.peer_down": "{peer} não está presente: {verdict}",
    "remedy.peer_down": "`ha why {peer}` tem as evidências; some quando ele voltar",
    "finding.never_answered": "{peer} nunca respondeu desde que foi configurado",
    "remedy.never_answered": (
        "verifique o endereço, se ele está ligado e se TCP/22 e TCP/7551 estão abertas"
    ),
    "finding.skew": "o relógio de {peer} difere em {seconds} s",
    "remedy.skew": "configure NTP nos dois nós",
    "finding.wrong_secret": "enlace com {peer}: o segredo difere",
    "remedy.wrong_secret": (
        "defina o mesmo ha.default.secret nos dois nós e execute `service ha restart`"
    ),
    "finding.unknown_key": "enlace com {peer}: um lado não conhece a chave do outro",
    "remedy.unknown_key": "pareie os dois nós novamente: `ha pair`",
    "finding.unknown_host_key": "enlace com {peer}: sua chave de host SSH não é a fixada",
    "remedy.unknown_host_key": (
        "se o peer foi reinstalado, pareie-o novamente; senão, descubra quem responde"
    ),
    "finding.unknown_node": "enlace com {peer}: os nós não estão pareados",
    "remedy.unknown_node": "pareie os dois nós: `ha pair`",
    "finding.version": "enlace com {peer}: as versões não conseguem falar entre si",
    "remedy.version": "leve os dois nós à mesma versão",
    "finding.refused": "enlace com {peer}: recusado",
    "remedy.refused": "veja `ha links` e o log dos dois nós",
    "finding.unknown_option": "{line}",
    "remedy.unknown_option": "corrija ou remova a linha",
    "finding.bad_value": "{line}",
    "remedy.bad_value": "corrija a linha; valem ainda as configurações lidas antes",
    "finding.no_key": "a chave deste nó não pode ser usada: {why}",
    "remedy.no_key": (
        "restaure a chave de um backup; ou remova-a, inicie o `ha` uma vez e pareie o nó novamente"
    ),
    "finding.exposed_key": "{file} pode ser lido por outros além de root (modo {mode})",
    "remedy.exposed_key": "chmod go= {file}; se outros estiveram neste nó, crie uma nova chave",
    "finding.no_authorized_keys": "{file} não pode ser lido: {why}",
    "remedy.no_authorized_keys": (
        "veja ha.default.authorized_keys; o `ha` escreve suas linhas ao iniciar"
    ),
    "finding.not_let_in": "{file} não tem a linha de {peer}: seu enlace não pode entrar aqui",
    "remedy.not_let_in": "service ha restart; veja ha.default.authorized_keys",
    "finding.clock_unset": "o relógio deste nó mostra {time}: nunca foi acertado",
    "remedy.clock_unset": (
        "configure o NTP; até lá as alterações feitas aqui perdem para todas as outras"
    ),
    "finding.database_down": "o banco de dados na porta {port} não responde: {why}",
    "remedy.database_down": "inicie-o; o nó funciona sem ele e se atualiza depois",
    "finding.releases": "{peer} executa a versão {theirs}, este nó a {own}",
    "remedy.releases": "traga os dois nós à mesma versão quando for conveniente",
    "finding.flapping": "{peer} voltou {returns} vezes em dez minutos",
    "remedy.flapping": (
        "`ha history` e `ha why {peer}` dizem por que falhou; agora merece menos confiança"
    ),
    "finding.gateway_silent": (
        "o gateway {gateway} ({host} porta {port}, {transport}) não responde a {local}: {why}"
    ),
    "remedy.gateway_silent": "libere {local} na lista de acesso dele e nos firewalls do caminho",
    "finding.gateway_forbids": (
        "o gateway {gateway} ({host} porta {port}, {transport}) recusa {local}: {why}"
    ),
    "remedy.gateway_forbids": (
        "inclua {local} na lista de acesso dele; veja conference.{gateway}.username e password"
    ),
    "finding.gateway_busy": (
        "o gateway {gateway} ({host} porta {port}, {transport}) diz que não pode atender: {why}"
    ),
    "remedy.gateway_busy": "veja o que o próprio gateway informa",
    "finding.gateway_replaces": "o gateway {gateway} não conhece Replaces: {why}",
    "remedy.gateway_replaces": (
        "uci set conference.{gateway}.replaces=0: as chamadas dele passam a ser assumidas por"
        " adoção"
    ),
    "finding.gateway_new_call": (
        "o gateway {gateway} tomou a substituição de uma chamada desconhecida por uma chamada"
        " nova: {why}"
    ),
    "remedy.gateway_new_call": (
        "uci set conference.{gateway}.replaces=0: as chamadas dele passam a ser assumidas por"
        " adoção"
    ),
    "finding.port_closed": "{what} de {peer} ({host} porta {port}) não pode ser alcançado: {why}",
    "remedy.port_closed": "libere a porta TCP {port} entre os nós e veja se o serviço está ativo",
}
TEXTS |= TRUST
