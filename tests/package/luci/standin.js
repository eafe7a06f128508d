'use strict';

/* The documented interfaces of LuCI's client side that the pages use, small: for machines without
   LuCI. The same tests run with the real one where CONTROLONE_LUCI_ROOT names its `htdocs`. */

(function() {
	var modules = {}, pollers = [], requestId = 0;

	String.prototype.format = function() {
		var values = arguments, next = 0;
		return this.replace(/%(?:(1024)\.(\d)m|\.(\d)f|([sd%]))/g, function(all, unit, digits, decimals, kind) {
			if (kind == '%')
				return '%';
			var value = values[next++];
			if (unit) {
				var power = 0;
				for (; value >= 1024 && power < 4; power++)
					value /= 1024;
				return value.toFixed(power ? +digits : 0) + ' ' + [ '', 'Ki', 'Mi', 'Gi', 'Ti' ][power];
			}
			return decimals ? Number(value).toFixed(+decimals) : String(value);
		});
	};

	window._ = function(text) {
		return (window.TRANSLATIONS || {})[text] || text;
	};

	function append(node, content) {
		if (Array.isArray(content))
			content.forEach(function(item) { append(node, item); });
		else if (content instanceof Node)
			node.appendChild(content);
		else if (content !== null && content !== undefined && content !== '')
			node.appendChild(document.createTextNode(String(content)));
	}

	window.E = function(tag, attributes, content) {
		var node = document.createElement(tag);
		Object.keys(attributes || {}).forEach(function(name) {
			var value = attributes[name];
			if (typeof value == 'function')
				node.addEventListener(name, value);
			else if (value !== null && value !== undefined)
				node.setAttribute(name, value);
		});
		append(node, content);
		return node;
	};

	function Class() {}
	Class.extend = function(properties) {
		var parent = this;
		function Made() {
			if (this.__init__)
				this.__init__.apply(this, arguments);
		}
		Made.prototype = Object.assign(Object.create(parent.prototype), properties);
		Made.extend = parent.extend;
		return Made;
	};

	function ubus(object, method, params) {
		var call = { jsonrpc: '2.0', id: ++requestId, method: 'call', params: [ 'session', object, method, params ] };
		return fetch('/ubus/', { method: 'POST', body: JSON.stringify(call) }).then(function(answer) {
			return answer.json();
		}).then(function(reply) {
			if (reply.error)
				throw new Error(reply.error.message);
			if (reply.result[0] !== 0)
				throw new Error('ubus code ' + reply.result[0]);
			return reply.result[1] || {};
		});
	}

	modules.baseclass = Class;
	modules.rpc = {
		declare: function(options) {
			return function() {
				var params = {}, values = arguments;
				(options.params || []).forEach(function(name, index) {
					if (values[index] !== undefined)
						params[name] = values[index];
				});
				return ubus(options.object, options.method, params);
			};
		}
	};
	modules.dom = {
		content: function(node, content) {
			node.textContent = '';
			append(node, content);
			return node;
		}
	};
	modules.poll = {
		add: function(step, seconds) {
			pollers.push(window.setInterval(step, seconds * 1000));
		}
	};

	var modal = null;
	modules.ui = {
		showModal: function(title, content) {
			modules.ui.hideModal();
			modal = E('div', { 'class': 'modal' }, [ E('h4', {}, [ title ]) ].concat(content));
			document.body.appendChild(modal);
			return modal;
		},
		hideModal: function() {
			if (modal)
				modal.remove();
			modal = null;
		},
		addNotification: function(title, content, kind) {
			document.getElementById('notes').appendChild(
				E('div', { 'class': 'alert-message ' + (kind || '') }, [ content ]));
		},
		createHandlerFn: function(context, handler) {
			var bound = Array.prototype.slice.call(arguments, 2);
			return function(event) {
				var button = event.currentTarget;
				button.disabled = true;
				var step = (typeof handler == 'string') ? context[handler] : handler;
				return Promise.resolve(step.apply(context, bound.concat([ event ]))).finally(function() {
					button.disabled = false;
				});
			};
		}
	};

	/* --- uci and its forms --- */

	var loaded = {}, changed = {};
	modules.uci = {
		load: function(name) {
			return ubus('uci', 'get', { config: name }).then(function(answer) { loaded[name] = answer.values; });
		},
		set: function(name, section, option, value) {
			changed[name] = changed[name] || {};
			changed[name][section] = changed[name][section] || {};
			changed[name][section][option] = value;
		},
		apply: function() {
			return Object.keys(changed).reduce(function(before, name) {
				return Object.keys(changed[name]).reduce(function(earlier, section) {
					return earlier.then(function() {
						return ubus('uci', 'set', { config: name, section: section, values: changed[name][section] });
					});
				}, before);
			}, Promise.resolve()).then(function() {
				changed = {};
				return ubus('uci', 'apply', { rollback: false, timeout: 10 });
			});
		}
	};

	var maps = [];
	function Option(name, title, description) {
		Object.assign(this, { option: name, title: title, description: description, choices: [] });
	}
	Option.prototype.value = function(choice) { this.choices.push(choice); };
	Option.prototype.render = function(config, section, values) {
		var value = this.cfgvalue ? this.cfgvalue(section) : values[this.option];
		if (Array.isArray(value))
			value = value.join(',');
		var input = this.input(value == null ? '' : String(value));
		input.setAttribute('data-name', this.option);
		this.widgets = (this.widgets || []).concat([ { input: input, section: section, first: this.read(input) } ]);
		return E('div', { 'class': 'cbi-value' }, [
			E('label', { 'class': 'cbi-value-title' }, [ this.title ]),
			E('div', { 'class': 'cbi-value-field' }, [ input, E('div', { 'class': 'cbi-value-description' }, [ this.description ]) ])
		]);
	};
	Option.prototype.input = function(value) {
		return E('input', { 'type': this.password ? 'password' : 'text', 'placeholder': this.placeholder, 'value': value });
	};
	Option.prototype.read = function(input) { return input.value; };
	Option.prototype.save = function(config) {
		(this.widgets || []).forEach(function(widget) {
			var value = this.read(widget.input);
			var verdict = this.validate ? this.validate(widget.section, value) : true;
			widget.input.setAttribute('title', verdict === true ? '' : verdict);
			widget.input.className = verdict === true ? '' : 'cbi-input-invalid';
			if (verdict !== true)
				throw new TypeError(this.option + ': ' + verdict);
			if (value !== widget.first)
				modules.uci.set(config, widget.section, this.option, value);
		}, this);
	};
	function subclass(properties) {
		function Made() { Option.apply(this, arguments); }
		Made.prototype = Object.assign(Object.create(Option.prototype), properties);
		return Made;
	}
	function Section(type, title) { Object.assign(this, { sectiontype: type, title: title, options: [] }); }
	Section.prototype.option = function(kind, name, title, description) {
		var made = new kind(name, title, description);
		this.options.push(made);
		return made;
	};
	function FormMap(config, title) { Object.assign(this, { config: config, title: title, sections: [] }); }
	FormMap.prototype.section = function(kind, type, title) {
		var made = new kind(type, title);
		this.sections.push(made);
		return made;
	};
	FormMap.prototype.render = function() {
		maps.push(this);
		return modules.uci.load(this.config).then(function() {
			var values = loaded[this.config];
			return E('div', { 'class': 'cbi-map', 'id': 'cbi-' + this.config }, [ E('h2', {}, [ this.title ]) ].concat(this.sections.map(function(section) {
				var names = Object.keys(values).filter(function(name) { return values[name]['.type'] == section.sectiontype; });
				return E('div', { 'class': 'cbi-section', 'id': 'cbi-' + this.config + '-' + section.sectiontype }, [ E('h3', {}, [ section.title ]) ].concat(names.map(function(name) {
					return E('div', { 'data-section-id': name }, section.options.map(function(option) {
						return option.render(this.config, name, values[name]);
					}, this));
				}, this)));
			}, this)));
		}.bind(this));
	};
	FormMap.prototype.save = function() {
		this.sections.forEach(function(section) {
			section.options.forEach(function(option) { option.save(this.config); }, this);
		}, this);
	};
	modules.form = {
		Map: FormMap, TypedSection: Section, NamedSection: Section, Value: subclass({}),
		Flag: subclass({
			input: function(value) {
				var box = E('input', { 'type': 'checkbox' });
				box.checked = (value || this['default'] || '0') == '1';
				return box;
			},
			read: function(input) { return input.checked ? '1' : '0'; }
		}),
		ListValue: subclass({
			input: function(value) {
				return E('select', {}, (value ? [] : [ '' ]).concat(this.choices).map(function(choice) {
					return E('option', choice == value ? { 'value': choice, 'selected': '1' } : { 'value': choice }, [ choice ]);
				}));
			}
		})
	};

	modules.view = Class.extend({
		__init__: function() {
			Promise.resolve(this.load()).then(this.render.bind(this)).then(function(node) {
				var place = document.getElementById('view');
				modules.dom.content(place, node);
				if (this.handleSaveApply !== null)
					place.appendChild(E('button', { 'class': 'cbi-button-apply', 'click': modules.ui.createHandlerFn(this, 'handleSaveApply') }, [ 'Save & Apply' ]));
			}.bind(this)).catch(function(error) {
				document.getElementById('view').textContent = 'error: ' + error.message;
			});
		},
		handleSaveApply: function() {
			return Promise.resolve().then(function() {
				maps.forEach(function(map) { map.save(); });
				return modules.uci.apply();
			}).catch(function(error) {
				modules.ui.addNotification(null, E('p', {}, [ error.message ]), 'danger');
			});
		}
	});

	function load(name) {
		if (modules[name])
			return Promise.resolve(modules[name]);
		return fetch('/luci-static/resources/' + name.replace(/\./g, '/') + '.js').then(function(answer) {
			return answer.text();
		}).then(function(source) {
			var needed = [], line = /^'require ([\w.]+)(?: as (\w+))?';$/gm, found;
			while ((found = line.exec(source)))
				needed.push([ found[1], found[2] || found[1] ]);
			return needed.reduce(function(before, need) {
				return before.then(function() { return load(need[0]); });
			}, Promise.resolve()).then(function() {
				var names = needed.map(function(need) { return need[1]; });
				var values = needed.map(function(need) { return modules[need[0]]; });
				var made = Function.apply(null, names.concat([ source ])).apply(window, values);
				modules[name] = (name.indexOf('view.') == 0) ? made : new made();
				return modules[name];
			});
		});
	}

	window.L = {
		resolveDefault: function(promise, value) {
			return Promise.resolve(promise).catch(function() { return value; });
		},
		instantiateView: function(path) {
			return load('view.' + path.replace(/\//g, '.')).then(function(View) { return new View(); });
		}
	};
})();
