'use strict';
'require view';
'require form';
'require rpc';
'require uci';

/* The forms of /etc/config/{ha,server,conference,console}, as far as they are on this device, made
   from the same table of options that the daemons check: what the page accepts they accept, and
   what it refuses it refuses in their words. */

var callSchema = rpc.declare({ object: 'ha', method: 'schema', params: [ 'package', 'lang' ] });

var language = (document.documentElement.lang || 'en').replace('-', '_');

var TITLES = {
	ha: _('High availability'), server: _('Console Server'), conference: _('Conference Server'),
	console: _('Console'), peer: _('Peers'), limits: _('Limits'), item: _('Items of synchronisation'), queue: _('Queues'),
	gateway: _('Gateways'), route: _('Routes')
};
var NAMED = [ 'peer', 'item', 'queue', 'gateway', 'route' ];

/* As config/validate.py does it. */
var NUMBER = /^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$/,
    NAME = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$/,
    HOST = /^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?$/,
    IPV6 = /^[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9_.-]+)?$/,
    BOOLEANS = [ '0', '1', 'on', 'off', 'true', 'false', 'yes', 'no', 'enabled', 'disabled' ];

function isHost(text) {
	return HOST.test(text) || (text.indexOf(':') >= 0 && IPV6.test(text));
}

function isPath(text) {
	return text.charAt(0) == '/';
}

var ITEMS = {
	hosts: isHost, names: function(text) { return NAME.test(text); }, paths: isPath,
	patterns: function() { return true; }
};

function isNumber(row, text) {
	var number = Number(text);
	return NUMBER.test(text) && number >= (row.minimum || 0) && (row.maximum == null || number <= row.maximum);
}

function fits(row, text) {
	switch (row.kind) {
	case 'integer': return /^[+-]?[0-9]{1,18}$/.test(text) && isNumber(row, text);
	case 'seconds': case 'percent': case 'number': return isNumber(row, text);
	case 'port': return /^[0-9]{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65535;
	case 'path': return isPath(text);
	case 'name': return NAME.test(text);
	case 'host': return isHost(text);
	case 'boolean': return BOOLEANS.indexOf(text.toLowerCase()) >= 0;
	case 'choice': return row.choices.indexOf(text) >= 0;
	default: return true;
	}
}

function refused(text, expected) {
	return _('got %s, expected %s').format("'" + text + "'", expected);
}

/* What is wrong with a value, in the daemon's words; true when nothing is. */
function verdict(row, value) {
	var check = ITEMS[row.kind];
	if (!check)
		return fits(row, value.trim()) || refused(value.trim(), row.expected);
	var items = value.split(/[,\s]+/).filter(function(item) { return item; });
	var bad = items.filter(function(item) { return !check(item); });
	if (bad.length)
		return refused(bad[0], row.expected);
	var twice = items.some(function(item, index) { return items.indexOf(item) != index; });
	return twice ? refused(items.join(', '), _('every item once')) : true;
}

function addOption(section, row) {
	var type = (row.kind == 'boolean') ? form.Flag : (row.kind == 'choice') ? form.ListValue : form.Value;
	var option = section.option(type, row.name, row.name, row.text + (row.unit ? ' (' + row.unit + ')' : ''));
	option.optional = option.rmempty = (row['default'] != null);
	if (row.kind == 'boolean')
		option['default'] = row['default'];
	else if (row['default'])
		option.placeholder = row['default'];
	(row.choices || []).forEach(function(choice) { option.value(choice); });
	if (row.kind == 'secret' || row.name == 'password') {
		/* Write-only: what is set is never shown, and an empty field leaves it as it is. */
		option.password = true;
		option.optional = option.rmempty = true;
		option.cfgvalue = function() { return null; };
		option.remove = function() {};
		option.placeholder = _('unchanged');
	}
	option.validate = function(id, value) {
		return (value == null || value === '') ? true : verdict(row, String(value));
	};
	return option;
}

return view.extend({
	load: function() {
		return Promise.all([ 'ha', 'server', 'conference', 'console' ].map(function(name) {
			return uci.load(name).then(function() {
				return L.resolveDefault(callSchema(name, language), { package: name, options: [] });
			}).catch(function() {
				return null; /* the package is not on this device */
			});
		}));
	},

	render: function(schemas) {
		return Promise.all(schemas.filter(function(schema) { return schema; }).map(function(schema) {
			var map = new form.Map(schema['package'], TITLES[schema['package']]);
			var sections = {};
			(schema.options || []).forEach(function(row) {
				var section = sections[row.section];
				if (!section) {
					section = sections[row.section] = map.section(form.TypedSection, row.section, TITLES[row.section]);
					section.anonymous = (NAMED.indexOf(row.section) < 0);
					section.addremove = (NAMED.indexOf(row.section) >= 0 || row.section == 'limits');
				}
				addOption(section, row);
			});
			return map.render();
		})).then(function(nodes) {
			return E('div', {}, nodes);
		});
	}
});
