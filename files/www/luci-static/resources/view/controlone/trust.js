'use strict';
'require view';
'require poll';
'require dom';
'require ui';
'require controlone.ha as ha';

/* Who belongs to the cluster: keys of the nodes, pairing, consoles and their enrolment, and what
   people and nodes have done. */

var callKeys = ha.method('keys'),
    callConsoles = ha.method('console', [ 'arguments' ]),
    callHistory = ha.method('history', [ 'limit', 'kind', 'peer' ]),
    callUnpair = ha.method('unpair', [ 'peer' ]),
    callOwnOffer = ha.method('pair_export'),
    callTakeOffer = ha.method('pair_import', [ 'offer', 'fingerprint' ]);

return view.extend({
	handleSaveApply: null,
	handleSave: null,
	handleReset: null,

	load: function() {
		return this.fetch();
	},

	fetch: function() {
		return Promise.all([ callKeys(), callConsoles([ 'list' ]), callHistory(50) ]);
	},

	render: function(data) {
		return ha.refreshed('controlone-trust', 10, this.fetch.bind(this), this.content.bind(this), poll, dom, data);
	},

	content: function(data) {
		return [ E('h2', {}, [ _('Trust') ]) ].concat(
			this.keys(data[0] || {}), this.consoles(data[1] || {}), this.audit(data[2] || {}));
	},

	keys: function(answer) {
		if (answer.error)
			return ha.section(_('Nodes'), [ ha.notice(answer.error.text) ]);
		var own = answer.own || {};
		var rows = (answer.pinned || []).map(function(pin) {
			return [
				pin.name, (pin.addresses || []).join(', '), pin.key, ha.moment(pin.added),
				ha.button(this, _('Unpair'), { 'data-unpair': pin.name }, function() {
					return ha.ask(_('Unpair'), _('%s is expelled from the whole cluster for ever: no link, no synchronisation, no takeover. It comes back only with new keys.').format(pin.name), function() {
						return callUnpair(pin.name);
					});
				})
			];
		}, this);
		return ha.section(_('Nodes'), [
			ha.table('ha-own-keys', [ _('Key of this node'), _('SSH host keys'), _('Certificate') ],
				[ [ own.key, (own.host_keys || []).join(', '), E('span', { 'style': 'word-break: break-all' }, [ own.certificate || '–' ]) ] ]),
			ha.table('ha-pins', [ _('Node'), _('Address'), _('Key'), _('Paired'), '' ], rows,
				_('This node is not paired with any other.')),
			ha.button(this, _('Pair a node'), { 'data-pair': '1' }, this.pair)
		]);
	},

	/* Two nodes are paired by carrying the offer of each to the other; a person compares the
	   fingerprint that stands beside it on the page of the node that made it. */
	pair: function() {
		return callOwnOffer().then(function(own) {
			if (own.error)
				return ha.show(_('Pair a node'), own);
			var offer = E('textarea', { 'id': 'ha-offer', 'class': 'cbi-input-textarea', 'rows': 4, 'style': 'width: 100%' });
			ha.show(_('Pair a node'), null, E('div', {}, [
				E('p', {}, [ _('Offer of this node, to be pasted into the same page of the other one:') ]),
				E('textarea', { 'id': 'ha-own-offer', 'class': 'cbi-input-textarea', 'rows': 4, 'style': 'width: 100%', 'readonly': 'readonly' }, [ own.offer ]),
				E('p', {}, [ _('Its fingerprint: %s').format(own.fingerprint) ]),
				E('p', {}, [ _('Offer of the other node:') ]),
				offer,
				ha.button(this, _('Pair'), { 'data-take-offer': '1' }, function() {
					return this.take(offer.value);
				})
			]));
		}.bind(this));
	},

	take: function(offer) {
		return callTakeOffer(offer, '').then(function(said) {
			if (said.error)
				return ha.tell(_('Pair'), said);
			ha.ask(_('Pair'), _('%s, key %s. Is %s the fingerprint that its own page shows?').format(said.name, said.key, said.fingerprint), function() {
				return callTakeOffer(offer, said.fingerprint).then(function(done) {
					if (!done.error)
						done.text = _('%s is paired here. Paste the offer of this node there, too.').format(done.name) +
							(done.listed ? '' : ' ' + _('It is not in the list of peers yet.'));
					return done;
				});
			});
		});
	},

	consoles: function(answer) {
		if (answer.error)
			return ha.section(_('Consoles'), [ ha.notice(answer.error.text) ]);
		var notices = answer.problem ? [ ha.notice(answer.problem) ] : [];
		var pending = (answer.pending || []).map(function(item) {
			var code = E('input', { 'type': 'text', 'class': 'cbi-input-text', 'data-code': item.console, 'placeholder': 'XXXX-XXXX-XXXX-XXXX' });
			return [ item.console, item.address, code, ha.button(this, _('Approve'), { 'data-approve': item.console }, function() {
				return callConsoles([ 'approve', item.console, code.value ]).then(function(said) {
					ha.tell(_('Approve'), said);
				});
			}) ];
		}, this);
		var connected = (answer.connected || []).map(function(item) { return item.console; });
		var rows = (answer.enrolled || []).map(function(item) {
			return [
				item.console, ha.moment(item.enrolled), item.by, connected.indexOf(item.console) < 0 ? _('no') : _('yes'),
				item.revoked ? _('revoked') : ha.button(this, _('Revoke'), { 'data-revoke': item.console }, function() {
					return ha.ask(_('Revoke'), _('%s may not log in any more, on any node.').format(item.console), function() {
						return callConsoles([ 'revoke', item.console ]);
					});
				})
			];
		}, this);
		return ha.section(_('Consoles'), notices.concat([
			ha.table('ha-pending', [ _('Asks to be enrolled'), _('Address'), _('Code shown on the console'), '' ], pending, _('No console asks to be enrolled.')),
			ha.table('ha-consoles', [ _('Console'), _('Enrolled'), _('Approved by'), _('Connected here'), '' ], rows, _('No console is enrolled.'))
		]));
	},

	audit: function(answer) {
		var rows = (answer.history || []).map(function(entry) {
			return [ ha.moment(entry.time), entry.node, entry.kind, entry.by, ha.reason(entry.reason) ];
		});
		return ha.section(_('Audit'), [
			ha.table('ha-audit', [ _('Time'), _('Node'), _('What'), _('Who'), _('Why') ], rows, _('Nothing has happened yet.'))
		]);
	}
});
