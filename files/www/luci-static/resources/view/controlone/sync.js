'use strict';
'require view';
'require poll';
'require dom';
'require ui';
'require controlone.ha as ha';

/* What is kept equal on all nodes: how each item stands with each of them, what differs, and what
   lost a conflict, to be looked at and brought back. */

var callStatus = ha.method('status'),
    callConflicts = ha.method('conflicts', [ 'arguments', 'all' ]),
    callDiff = ha.method('diff', [ 'arguments' ]),
    callStart = ha.method('sync_start', [ 'item' ]),
    callProgress = ha.method('sync_progress', [ 'run' ]);

var ITEMS = {
	config: _('configuration'), jobs: _('jobs'), recordings: _('recordings'), sounds: _('sounds'),
	database: _('database')
};
var WHY = { conflict: _('both sides had changed it'), damaged: _('damaged on disk'), replaced: _('replaced by a newer one') };
var WHAT = {
	only_here: _('only here'), only_there: _('only there'), deleted_here: _('deleted here'),
	deleted_there: _('deleted there'), newer_here: _('newer here'), newer_there: _('newer there')
};

return view.extend({
	handleSaveApply: null,
	handleSave: null,
	handleReset: null,

	load: function() {
		return this.fetch();
	},

	fetch: function() {
		return Promise.all([ callStatus(), callConflicts([], false) ]);
	},

	render: function(data) {
		this.progress = E('div', { 'id': 'ha-progress' });
		return E('div', {}, [
			E('h2', {}, [ _('Synchronisation') ]),
			ha.refreshed('controlone-sync', 5, this.fetch.bind(this), this.content.bind(this), poll, dom, data),
			this.progress
		]);
	},

	content: function(data) {
		var status = data[0] || {};
		if (status.error)
			return [ ha.notice(status.error.text) ];
		return [ this.items(status), this.peers(status), this.conflicts(data[1] || {}) ];
	},

	items: function(status) {
		var names = (status.peers || []).map(function(peer) { return peer.name; });
		var titles = [ _('Item'), _('Files'), _('Size') ].concat(names, [ '' ]);
		var notices = [];
		var rows = (status.sync || []).map(function(item) {
			(item.problems || []).forEach(function(problem) {
				var text = problem.text || problem;
				notices.push(ha.notice(ha.word(ITEMS, item.item) + ': ' + text));
			});
			return [
				ha.word(ITEMS, item.item), item.present == null ? '–' : String(item.present), ha.size(item.bytes)
			].concat(names.map(function(name) {
				return ha.sync((item.peers || {})[name]);
			}), [ item.item == 'database' ? '' : this.syncButton(item.item) ]);
		}, this);
		return ha.section(_('Items'), notices.concat([ ha.table('ha-items', titles, rows, _('Nothing is synchronised.')), this.syncButton(null) ]));
	},

	syncButton: function(item) {
		return ha.button(this, item ? _('Synchronise') : _('Synchronise everything now'), { 'data-sync': item || 'all' }, function() {
			return this.start(item);
		});
	},

	start: function(item) {
		return callStart(item).then(function(answer) {
			if (answer.error)
				return ha.tell(_('Synchronise'), answer);
			return this.follow(answer);
		}.bind(this));
	},

	follow: function(progress) {
		var titles = [ _('Node'), _('Files'), _('Bytes'), _('State') ];
		dom.content(this.progress, ha.section(_('Progress'), [
			ha.table('ha-progress-table', titles, (progress.peers || []).map(function(peer) {
				return [
					peer.peer, '%d / %d'.format(peer.files, peer.files_total),
					ha.size(peer.bytes) + ' / ' + ha.size(peer.bytes_total),
					peer.error || (peer.done ? _('in sync') : _('running'))
				];
			}), _('No other nodes are configured.'))
		]));
		if (progress.done || progress.error)
			return progress;
		return new Promise(function(resolve) { window.setTimeout(resolve, 500); }).then(function() {
			return callProgress(progress.run);
		}).then(this.follow.bind(this));
	},

	peers: function(status) {
		return ha.section(_('Differences'), [ E('div', {}, (status.peers || []).map(function(peer) {
			return ha.button(this, _('With %s').format(peer.name), { 'data-diff': peer.name }, function() {
				return this.difference(peer.name);
			});
		}, this)) ]);
	},

	difference: function(peer) {
		return callDiff([ peer ]).then(function(answer) {
			var rows = (answer.files || []).map(function(file) {
				return [ ha.word(ITEMS, file.item), file.path, ha.word(WHAT, file.what), E('pre', {}, [ (file.lines || []).join('\n') ]) ];
			});
			ha.show(_('Differences with %s').format(peer), answer,
				ha.table('ha-diff', [ _('Item'), _('File'), _('What'), _('Lines') ], rows, _('Nothing differs.')));
		});
	},

	conflicts: function(answer) {
		if (answer.error)
			return ha.section(_('Conflicts'), [ ha.notice(answer.error.text) ]);
		var rows = (answer.conflicts || []).map(function(copy) {
			return [
				copy.path, ha.word(WHY, copy.why), copy.node, ha.moment(copy.edited), copy.winner_node,
				E('div', {}, [
					ha.button(this, _('Compare'), { 'data-conflict-diff': copy.id }, function() {
						return callConflicts([ 'diff', copy.id ], false).then(function(found) {
							ha.show(copy.path, found, E('pre', { 'id': 'ha-conflict' }, [ (found.lines || []).join('\n') ]));
						});
					}),
					ha.button(this, _('Restore'), { 'data-restore': copy.id }, function() {
						return ha.ask(_('Restore'), _('%s becomes what it was; what it is now is kept as a copy.').format(copy.path), function() {
							return callConflicts([ 'restore', copy.id ], false);
						});
					})
				])
			];
		}, this);
		return ha.section(_('Conflicts'), [ ha.table('ha-conflicts', [
			_('File'), _('Why'), _('Node'), _('Changed'), _('Lost to'), ''
		], rows, _('Nothing has lost a conflict.')) ]);
	}
});
