'use strict';
'require baseclass';
'require rpc';
'require ui';

/* What the pages of System → HA share: the ubus object `ha`, whose answers are those of
   `ha … --json`, words for its codes, tables, and questions before orders. With `lang` the
   object's sentences are in the page's language. */

var language = (document.documentElement.lang || 'en').replace('-', '_');

var STATES = {
	active: _('active'), standby: _('standby'), passive: _('passive'), degraded: _('degraded'),
	abnormal: _('abnormal'), unknown: _('unknown'), failed: _('failed'), alive: _('alive'),
	suspect: _('suspect'), left: _('left'), starting: _('starting'), silent: _('silent'),
	no_daemon: _('HA daemon down'), service_failed: _('service failed'), refused: _('refused')
};
var ROLES = { master: _('master'), slave: _('slave'), passive: _('passive') };
var LINKS = {
	up: _('up'), connecting: _('connecting'), refused: _('refused'), down: _('down'),
	unpaired: _('not paired')
};
var SERVICES = {
	server: _('Console Server'), conference: _('Conference Server'), ha: 'HA',
	database: _('Database')
};
var SERVICE_STATES = {
	serving: _('serving'), disabled: _('disabled'), stopped: _('stopped'), frozen: _('frozen'),
	failed: _('failed'), unknown: _('unknown')
};
var SYNC = { 'in sync': _('in sync'), pending: _('pending'), held: _('held'), never: _('never') };

return baseclass.extend({
	STATES: STATES,
	ROLES: ROLES,
	LINKS: LINKS,
	SERVICES: SERVICES,
	SERVICE_STATES: SERVICE_STATES,

	/* A function that calls `ubus call ha METHOD` with its arguments by these names; the last one,
	   the language, is added. */
	method: function(name, params) {
		var names = (params || []).concat([ 'lang' ]);
		var call = rpc.declare({ object: 'ha', method: name, params: names });
		return function() {
			var values = Array.prototype.slice.call(arguments, 0, names.length - 1);
			while (values.length < names.length - 1)
				values.push(null);
			return call.apply(null, values.concat([ language ])).catch(function(error) {
				return { error: { text: String(error.message || error) } };
			});
		};
	},

	word: function(words, value) {
		return (value in words) ? words[value] : (value || '–');
	},

	moment: function(time) {
		if (!time)
			return '–';
		return new Date(typeof time == 'number' ? time * 1000 : time).toLocaleString();
	},

	size: function(bytes) {
		return bytes == null ? '–' : '%1024.1mB'.format(bytes);
	},

	reason: function(reason) {
		return (reason && reason.text) || '–';
	},

	sync: function(standing) {
		if (!standing)
			return '–';
		var text = this.word(SYNC, standing.state);
		if (standing.text)
			text += ': ' + standing.text;
		return standing.since ? text + ' (' + this.moment(standing.since) + ')' : text;
	},

	table: function(id, titles, rows, empty) {
		var lines = rows.map(function(row) {
			return E('tr', { 'class': 'tr' }, row.map(function(content, index) {
				return E('td', { 'class': 'td left', 'data-title': titles[index] },
					[ content == null || content === '' ? '–' : content ]);
			}));
		});
		if (!lines.length)
			lines = [ E('tr', { 'class': 'tr placeholder' }, [ E('td', { 'class': 'td' }, [ empty ]) ]) ];
		return E('table', { 'class': 'table', 'id': id }, [
			E('tr', { 'class': 'tr table-titles' }, titles.map(function(title) {
				return E('th', { 'class': 'th left' }, [ title ]);
			}))
		].concat(lines));
	},

	section: function(title, content) {
		return E('div', { 'class': 'cbi-section' }, [ E('h3', {}, [ title ]) ].concat(content));
	},

	notice: function(text) {
		return E('div', { 'class': 'alert-message warning' }, [ text ]);
	},

	/* A button; `attributes` tell tests and styles what it is. */
	button: function(owner, title, attributes, handler) {
		return E('button', Object.assign({
			'class': 'btn cbi-button cbi-button-action', 'style': 'margin: 0 .5em .5em 0',
			'click': ui.createHandlerFn(owner, handler)
		}, attributes), [ title ]);
	},

	/* Shows lines in a dialogue, or the refusal in `answer`. */
	show: function(title, answer, content) {
		ui.showModal(title, [
			(answer && answer.error) ? E('p', {}, [ answer.error.text ]) : content,
			E('div', { 'class': 'right' }, [
				E('button', { 'class': 'btn', 'data-close': '1', 'click': ui.hideModal }, [ _('Close') ])
			])
		]);
	},

	/* Asks before an order; its answer, or its refusal with the reason, becomes a notification. */
	ask: function(title, question, order, done) {
		var self = this;
		ui.showModal(title, [
			E('p', {}, [ question ]),
			E('div', { 'class': 'right' }, [
				E('button', { 'class': 'btn', 'click': ui.hideModal }, [ _('Cancel') ]), ' ',
				E('button', {
					'class': 'btn cbi-button cbi-button-negative important', 'data-confirm': '1',
					'click': ui.createHandlerFn(this, function() {
						return order().then(function(answer) {
							ui.hideModal();
							self.tell(title, answer);
							return done ? done(answer) : null;
						});
					})
				}, [ _('Confirm') ])
			])
		]);
	},

	tell: function(title, answer) {
		var text = answer.error ? answer.error.text : (answer.text || this.reason(answer.reason));
		ui.addNotification(null, E('p', {}, [ title + ': ' + text ]), answer.error ? 'danger' : 'info');
	},

	/* The page renews itself: `content` gets what `fetch` found, now and every `seconds`. */
	refreshed: function(id, seconds, fetch, content, poll, dom, first) {
		var body = E('div', { 'id': id }, content(first));
		poll.add(function() {
			return fetch().then(function(fresh) {
				dom.content(body, content(fresh));
			});
		}, seconds);
		return body;
	}
});
