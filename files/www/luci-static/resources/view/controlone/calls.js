'use strict';
'require view';
'require poll';
'require dom';
'require controlone.ha as ha';

/* The live calls of the cluster as this node knows them, and what became of those that were taken
   over from a failed node. */

var callCalls = ha.method('calls'),
    callTakeovers = ha.method('calls', [ 'takeovers' ]);

var CALL_STATES = {
	queued: _('waiting'), ringing: _('ringing'), up: _('up'), held: _('held'), lost: _('lost'), ended: _('ended')
};
var OUTCOMES = {
	taken: _('taken'), fallback: _('taken by the other way'), refused: _('refused'), gone: _('had ended'),
	unreachable: _('unreachable'), ghost: _('rang as a new call, cancelled'), already_taken: _('taken by another node')
};

return view.extend({
	handleSaveApply: null,
	handleSave: null,
	handleReset: null,

	load: function() {
		return this.fetch();
	},

	fetch: function() {
		return Promise.all([ callCalls(), callTakeovers(true) ]);
	},

	render: function(data) {
		return ha.refreshed('controlone-calls', 3, this.fetch.bind(this), this.content.bind(this), poll, dom, data);
	},

	content: function(data) {
		return [ E('h2', {}, [ _('Calls') ]), this.calls(data[0] || {}), this.takeovers(data[1] || {}) ];
	},

	calls: function(answer) {
		var titles = [ _('Call'), _('Node'), _('State'), _('Queue'), _('Since'), _('Parties'), _('Recording'), _('Protected by') ];
		var notices = answer.error ? [ ha.notice(answer.error.text) ] : [];
		var rows = (answer.calls || []).map(function(call) {
			var parties = (call.legs || []).filter(function(leg) { return leg.state != 'ended'; });
			var keepers = call.protected_by || [];
			return [
				call.id, call.owner, ha.word(CALL_STATES, call.state), call.queue || call.number,
				ha.moment(call.answered || call.created),
				parties.map(function(leg) { return leg.party; }).join(', '),
				call.recording ? _('yes') : _('no'),
				call.here && !keepers.length ? E('strong', {}, [ _('nobody') ]) : keepers.join(', ')
			];
		});
		return ha.section(_('Live calls'), notices.concat([ ha.table('ha-calls', titles, rows, _('There is no call.')) ]));
	},

	takeovers: function(answer) {
		var titles = [ _('Time'), _('From'), _('By'), _('Reason'), _('Calls'), _('Parties') ];
		var rows = (answer.takeovers || []).map(function(takeover) {
			var counts = takeover.outcomes || {};
			return [
				ha.moment(takeover.time), takeover.from, takeover.by, ha.reason(takeover.reason), '%d / %d'.format(takeover.up, takeover.calls),
				Object.keys(counts).sort().map(function(outcome) {
					return '%d %s'.format(counts[outcome], ha.word(OUTCOMES, outcome));
				}).join(', ')
			];
		});
		return ha.section(_('Takeovers'), [ ha.table('ha-takeovers', titles, rows, _('No call has been taken over.')) ]);
	}
});
