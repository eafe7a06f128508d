'use strict';
'require view';
'require poll';
'require dom';
'require controlone.ha as ha';

/* System → HA: the cluster as this node sees it, the reasons, and the orders. */

var callStatus = ha.method('status'),
    callHistory = ha.method('history', [ 'limit' ]),
    callCheck = ha.method('check'),
    callPlan = ha.method('plan', [ 'peer' ]),
    callWhyNot = ha.method('why_not', [ 'peer' ]),
    callService = ha.method('service', [ 'name', 'action' ]),
    callPause = ha.method('pause', [ 'arguments' ]);

/* Colours of a node's frame in the picture, by how it is. */
var COLOURS = {
	active: '#2e7d32', standby: '#1565c0', passive: '#616161', degraded: '#ef6c00', abnormal: '#ef6c00',
	suspect: '#ef6c00', no_daemon: '#ef6c00', service_failed: '#c62828', failed: '#c62828', silent: '#c62828'
};

/* What this node found out comes before what the peer said of itself last. */
function stateOf(peer) {
	var found = peer.verdict && peer.verdict != 'alive' && peer.verdict != peer.state;
	return found ? peer.verdict : peer.state;
}

return view.extend({
	handleSaveApply: null,
	handleSave: null,
	handleReset: null,

	load: function() {
		return this.fetch();
	},

	fetch: function() {
		return Promise.all([ callStatus(), callHistory(15), callCheck() ]);
	},

	render: function(data) {
		return ha.refreshed('controlone-ha', 5, this.fetch.bind(this), this.content.bind(this), poll, dom, data);
	},

	content: function(data) {
		var status = data[0] || {};
		var parts = [ E('h2', {}, [ _('High availability') ]) ];
		if (status.error)
			return parts.concat(ha.notice(status.error.text), this.restartButton('ha'));
		if (status.daemon)
			parts.push(ha.notice(_('The HA daemon does not answer; this is what it wrote last.')));
		if (!status.node)
			return parts.concat(this.restartButton('ha'));
		return parts.concat(this.picture(status), this.own(status), this.orders(status), this.nodes(status),
			this.services(status), this.findings(data[2] || {}), this.history(data[1] || {}));
	},

	/* Sites as frames, nodes in them; the line under a node is its link with this one. */
	picture: function(status) {
		var sites = {};
		var add = function(site, name, role, state, link) {
			(sites[site || '–'] = sites[site || '–'] || []).push(E('div', {
				'data-node': name, 'data-state': state || 'unknown',
				'style': 'border: 2px solid %s; border-radius: 6px; padding: .4em .8em; margin: .3em; min-width: 7em'.format(
					COLOURS[state] || '#9e9e9e')
			}, [
				E('strong', {}, [ name ]), E('br'), ha.word(ha.ROLES, role), ' · ', ha.word(ha.STATES, state),
				E('br'), E('small', {}, [ link ])
			]));
		};
		add(status.site, status.node, status.role, status.state, _('this node'));
		(status.peers || []).forEach(function(peer) {
			var link = peer.link || {};
			var text = _('link: %s').format(ha.word(ha.LINKS, link.state));
			add(peer.site, peer.name, peer.role, stateOf(peer),
				peer.rtt_ms != null && link.state == 'up' ? text + ', %.1f ms'.format(peer.rtt_ms) : text);
		});
		return ha.section(_('Cluster'), [
			E('div', { 'id': 'ha-picture', 'style': 'display: flex; flex-wrap: wrap; gap: 1em' },
				Object.keys(sites).sort().map(function(site) {
					return E('div', { 'data-site': site, 'style': 'border: 1px dashed #9e9e9e; border-radius: 8px; padding: .6em' }, [
						E('div', {}, [ _('Site %s').format(site) ]),
						E('div', { 'style': 'display: flex; flex-wrap: wrap' }, sites[site])
					]);
				}))
		]);
	},

	own: function(status) {
		var notices = (status.warnings || []).map(function(warning) {
			return ha.notice(warning.text + (warning.remedy ? ' – ' + warning.remedy : ''));
		});
		if (status.forced)
			notices.push(ha.notice(_('Forced by hand: %s').format(ha.word(ha.STATES, status.forced))));
		if (status.paused)
			notices.push(ha.notice(_('Paused by %s: %s').format(
				status.paused.by || '–', status.paused.reason || '–')));
		(status.abnormalities || []).forEach(function(item) {
			notices.push(ha.notice(item.text));
		});
		return ha.section(_('This node'), notices.concat([
			ha.table('ha-node', [ _('Node'), _('Role'), _('State'), _('Since'), _('Reason') ], [ [
				status.node, ha.word(ha.ROLES, status.role),
				E('strong', {}, [ ha.word(ha.STATES, status.state) ]),
				ha.moment(status.since), ha.reason(status.reason)
			] ])
		]));
	},

	orders: function(status) {
		var self = this;
		var order = function(title, method, question) {
			return ha.button(self, title, { 'data-order': method }, function() {
				return ha.ask(title, question, method == 'pause'
					? function() { return callPause([ _('from the web page') ]); }
					: ha.method(method));
			});
		};
		return ha.section(_('Orders'), [ E('div', {}, [
			order(_('Force active'), 'force_active', _('This node becomes active and stays so until resumed.')),
			order(_('Force passive'), 'force_passive', _('This node hands over and stays out of service until resumed.')),
			status.paused || status.forced
				? order(_('Resume'), 'resume', _('This node decides by itself again.'))
				: order(_('Pause'), 'pause', _('This node takes over nothing and leaves nothing until resumed.'))
		]) ]);
	},

	nodes: function(status) {
		var titles = [
			_('Node'), _('Address'), _('Role'), _('State'), _('Since'), _('Link'),
			_('Configuration'), _('Data'), _('What if')
		];
		var rows = (status.peers || []).map(function(peer) {
			var link = peer.link || {}, sync = peer.sync || {};
			return [
				peer.name, peer.address, ha.word(ha.ROLES, peer.role), ha.word(ha.STATES, stateOf(peer)),
				ha.moment(peer.since), E('span', { 'title': link.text || '' }, [ ha.word(ha.LINKS, link.state) ]),
				ha.sync(sync.config), ha.sync(sync.data),
				E('div', {}, [
					ha.button(this, _('If it fails'), { 'data-plan': peer.name }, function() { return this.plan(peer.name); }),
					ha.button(this, _('Why not this node'), { 'data-why-not': peer.name }, function() { return this.whyNot(peer.name); })
				])
			];
		}, this);
		return ha.section(_('Nodes'), [ ha.table('ha-peers', titles, rows, _('No other nodes are configured.')) ]);
	},

	plan: function(peer) {
		return callPlan(peer).then(function(answer) {
			var lines = (answer.nodes || []).map(function(node) {
				return E('li', {}, [ node.node + ': ' + ha.word(ha.STATES, node.state) + ' → ' + ha.word(ha.STATES, node.to) + '. ' + ha.reason(node.reason) ]);
			}).concat((answer.notes || []).map(function(note) { return E('li', {}, [ note.text ]); }));
			ha.show(_('If %s fails now').format(peer), answer, E('ul', { 'id': 'ha-plan' }, lines));
		});
	},

	whyNot: function(peer) {
		return callWhyNot(peer).then(function(answer) {
			var lines = [ E('li', {}, [ ha.reason(answer.reason) ]) ].concat(
				(answer.obstacles || []).map(function(item) { return E('li', {}, [ item.text ]); }));
			ha.show(_('Why this node would not replace %s').format(peer), answer, E('ul', {}, lines));
		});
	},

	services: function(status) {
		var titles = [ _('Service'), _('State'), _('Since'), _('Restarts'), '' ];
		var rows = (status.services || []).map(function(service) {
			return [
				ha.word(ha.SERVICES, service.name), ha.word(ha.SERVICE_STATES, service.state), ha.moment(service.since),
				String(service.restarts || 0),
				service.name == 'database' ? service.detail : this.restartButton(service.name)
			];
		}, this);
		rows.push([ ha.SERVICES.ha, status.daemon ? _('stopped') : _('serving'), ha.moment(status.started), '–', this.restartButton('ha') ]);
		return ha.section(_('Services'), [ ha.table('ha-services', titles, rows) ]);
	},

	restartButton: function(name) {
		var question = (name == 'ha')
			? _('The HA daemon starts over. Services and calls go on.')
			: _('The service starts over. Consoles or calls of this node are interrupted.');
		return ha.button(this, _('Restart'), { 'data-service': name }, function() {
			return ha.ask(_('Restart'), ha.word(ha.SERVICES, name) + ': ' + question, function() {
				return callService(name, 'restart');
			});
		});
	},

	findings: function(answer) {
		var rows = (answer.check || []).map(function(item) {
			return [ item.severity == 'error' ? _('error') : _('warning'), item.text, item.remedy ];
		});
		return ha.section(_('Check'), [
			ha.table('ha-check', [ _('Severity'), _('Finding'), _('Remedy') ], rows, _('Nothing is wrong.'))
		]);
	},

	history: function(answer) {
		var rows = (answer.history || []).map(function(entry) {
			return [ ha.moment(entry.time), entry.peer || entry.node, ha.word(ha.STATES, entry.to), ha.reason(entry.reason) ];
		});
		return ha.section(_('History'), [
			ha.table('ha-history', [ _('Time'), _('Node'), _('State'), _('Reason') ], rows, _('Nothing has happened yet.'))
		]);
	}
});
