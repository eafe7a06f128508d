"""The texts about trust, licences and the audit in Portuguese; part of ``texts_pt``."""

from __future__ import annotations

TEXTS: dict[str, str] = {
    "usage.keys": "ha keys [rotate|new]",
    "help.keys": (
        "impressões digitais dos nós, e os expulsos\n"
        "rotate: outra chave para este nó, com os enlaces de pé; a atual também vale por\n"
        "--grace HORAS (24), para peers e consoles ausentes.\n"
        "new: nova chave e certificado de imediato; o nó depois precisa ser pareado de novo."
    ),
    "keys.new_question": "{name} recebe uma chave nova: todos os peers precisam pareá-lo de novo.",
    "keys.new_not_confirmed": "não confirmado; use --yes onde ninguém pode responder",
    "keys.new_done": "Nova chave {key}. Reinicie ha, server e mongod, depois pareie este nó.",
    "keys.rotating": (
        "A próxima chave deste nó é {key}. Os peers são avisados agora; ela é usada quando todos\n"
        "estiverem ligados por alguns segundos. A atual também vale, por {hours} h."
    ),
    "keys.announced": "a próxima, os peers a conhecem; até {until}",
    "keys.used": "a última, vale até {until}",
    "keys.other": "também vale, até {until}",
    "error.keys_order": ("`ha keys {word}` não existe; existem `ha keys rotate` e `ha keys new`"),
    "usage.unpair": "ha unpair PEER [--here]",
    "help.unpair": (
        "expulsa a chave de PEER para sempre\n"
        "Todos os nós derrubam o enlace, a chave SSH e o certificado de PEER em segundos, e os\n"
        "nós ausentes o fazem quando voltam. Ele só retorna com chaves novas (`ha keys new`\n"
        "nele, depois `ha pair`). Se foi roubado, troque depois o segredo.\n"
        "--reason TEXTO: por quê, para a auditoria. \n"
        "--here: só este nó esquece PEER, até ser pareado outra vez."
    ),
    "pair.expelled": "{name} foi expulso do cluster, chave {key}.",
    "keys.expelled": "expulso: {name}, {key}, {at} por {by} em {node}: {why}",
    "link_code.expelled": "expulso do cluster",
    "finding.expelled": "{peer} foi expulso do cluster",
    "remedy.expelled": "retire {peer} de ha.default.peers, ou pareie o nó que o substitui",
    "usage.leave": "ha leave",
    "help.leave": (
        "entrega os serviços e fica passivo até o próximo início do `ha`\n"
        "`service ha stop` e o desligamento do sistema o fazem antes. Um nó que ninguém poderia\n"
        "substituir, ou cujo estado é forçado, fica como está (código de saída 1)."
    ),
    "leave.done": "Este nó entregou os serviços; ele volta quando o `ha` iniciar de novo.",
    "leave.nobody": "Ninguém assume agora, ou o nó está forçado: ele fica como está.",
    "usage.licence": "ha licence [AÇÃO]",
    "help.licence": (
        "licenças CO-LICE-HA: quem está coberto, e novas\n"
        "list (padrão): os masters, os arquivos e quais valem; código de saída 4 se faltam.\n"
        "verify ARQUIVO: é assinada pelo fornecedor? install ARQUIVO: guarda; vai a todos os nós."
    ),
    "error.licence_action": (
        "`ha licence {word}` não existe; há list, verify ARQUIVO e install ARQUIVO"
    ),
    "licence.masters": "Masters: {count} ({names}); licenças CO-LICE-HA válidas: {valid}.",
    "licence.missing": "Sem licença, de modo que ninguém assume por eles: {names}.",
    "licence.none": "Nenhuma licença em {directory}: `ha licence install ARQUIVO`.",
    "licence.serial": "SÉRIE",
    "licence.state": "ESTADO",
    "licence.expires": "VALIDADE",
    "licence.customer": "CLIENTE",
    "licence.verified": "{serial} está assinada pelo fornecedor: {customer}, validade {expires}.",
    "licence.installed": "{serial} está instalada: {customer}, validade {expires}.",
    "licence_state.valid": "válida",
    "licence_state.expired": "vencida",
    "licence_state.foreign": "de outro cluster",
    "licence_state.duplicate": "repetida",
    "licence_state.forged": "falsa",
    "licence_state.unreadable": "ilegível",
    "finding.licences_missing": (
        "{masters} masters, {valid} licenças CO-LICE-HA: ninguém assume por {names}"
    ),
    "remedy.licences_missing": "ha licence install ARQUIVO, em qualquer nó, para cada master",
    "finding.licence_expired": "a licença {file} venceu em {detail}",
    "remedy.licence_expired": (
        "instale a nova com `ha licence install ARQUIVO` e remova esta em cada nó"
    ),
    "finding.licence_foreign": "a licença {file} foi emitida para outro cluster ({detail})",
    "remedy.licence_foreign": "remova-a em cada nó, ou peça-a para uma chave que `ha keys` mostra",
    "finding.licence_duplicate": "a licença {file} está repetida e vale uma vez ({detail})",
    "remedy.licence_duplicate": (
        "cada master precisa de uma licença com série própria; remova a cópia em cada nó"
    ),
    "finding.licence_forged": "a licença {file} não é do fornecedor: {detail}",
    "remedy.licence_forged": "remova-a em cada nó; peça uma licença ao fornecedor",
    "finding.licence_unreadable": "a licença {file} não pode ser lida: {detail}",
    "remedy.licence_unreadable": (
        "copie-a de novo do que o fornecedor enviou, depois `ha licence install ARQUIVO`"
    ),
    "finding.licence_ends": "a licença {file} vence em {date}",
    "remedy.licence_ends": (
        "peça a nova ao fornecedor; chamadas em curso continuam de qualquer modo"
    ),
    "usage.audit": "ha audit [verify]",
    "help.audit": (
        "verifica os históricos que este nó guarda\n"
        "Cada linha tem o hash da anterior: uma linha removida ou alterada aparece, e também\n"
        "um fim cortado, porque cada nó guarda cópias dos outros. Código de saída 4 se for o caso."
    ),
    "error.audit_action": "`ha audit {word}` não existe; existe `ha audit verify`",
    "audit.own": "próprio",
    "audit.copy": "cópia",
    "audit.broken": "{count} problemas",
    "audit.whole": "íntegro",
    "audit.head_node": "NÓ",
    "audit.head_what": "O QUÊ",
    "audit.head_range": "LINHAS",
    "audit.head_lines": "GUARDADAS",
    "audit.head_state": "ESTADO",
    "audit.held": "Até que linha deste nó os outros a guardam: {names}.",
    "finding.audit": "o histórico não corresponde ao que foi guardado em outro lugar",
    "remedy.audit": "ha audit, aqui e nos nós citados; compare quem teve acesso a eles",
    "usage.support": "ha support [ARQUIVO]",
    "help.support": "um arquivo para quem dá suporte, segredos ocultos",
    "support.done": "{file}: {count} arquivos, segredos ocultos.",
    "usage.secret": "ha secret rotate [--grace H]",
    "help.secret": (
        "novo segredo do cluster neste nó, enlaces mantidos\n"
        "Pedido no terminal, ou lido da entrada padrão. O antigo também vale por H horas (24):\n"
        "faça o mesmo em cada nó nesse prazo. O segredo antigo em si não é guardado."
    ),
    "error.secret_order": "`ha secret {word}` não existe; existe `ha secret rotate`",
    "secret.ask": "Novo segredo:",
    "secret.same": "nenhum segredo novo foi dado",
    "secret.done": (
        "Novo segredo em vigor; o antigo vale por {hours} h: faça o mesmo em cada outro nó."
    ),
}
