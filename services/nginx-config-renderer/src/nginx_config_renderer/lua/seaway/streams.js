// Where a connection goes that nginx carries without opening it. It runs once a connection, in nginx's stream module.
//
// The endpoints stand in files of the renderer, one a port and one a host (see streams.py), and are read anew each time: a reader sees a file
// whole, as it was or as it is, and what changed is in force with the next connection. Reading it is the one way that does not make a
// connection wait: asking another server does, and nginx drops the datagrams that come meanwhile.
//
// An endpoint is taken at random. One that could not be reached rests for a while, unless none else is left: its mark is a file too, since
// that is what all workers see.

import fs from 'fs';

const REST = 10000; // milliseconds
const MARK = 'rests-';
const NAME = /^[a-z0-9][a-z0-9.-]{0,252}$/;

function read(s, file) {
    try {
        return JSON.parse(fs.readFileSync(`${s.variables.seaway_streams}/${file}`, 'utf8'));
    } catch (e) {
        return undefined;
    }
}

function mark(s, endpoint) {
    return `${s.variables.seaway_run}/${MARK}${s.variables.protocol}-${endpoint}`;
}

function age(file) {
    try {
        return Date.now() - fs.statSync(file).mtimeMs;
    } catch (e) {
        return undefined; // there is no such mark
    }
}

function rests(s, endpoint) {
    const since = age(mark(s, endpoint));
    return since !== undefined && since < REST;
}

// Takes old marks away, since an endpoint that is gone is never asked for again.
function sweep(s) {
    const run = s.variables.seaway_run;
    fs.readdirSync(run).filter((name) => name.startsWith(MARK)).forEach((name) => {
        if (age(`${run}/${name}`) >= REST) {
            fs.unlinkSync(`${run}/${name}`);
        }
    });
}

function pick(s, endpoints) {
    if (!Array.isArray(endpoints) || endpoints.length === 0) {
        return '';
    }
    const count = endpoints.length;
    const first = Math.floor(Math.random() * count);
    for (let i = 0; i < count && count > 1; i++) {
        const endpoint = endpoints[(first + i) % count];
        if (!rests(s, endpoint)) {
            return endpoint;
        }
    }
    return endpoints[first];
}

// What is known of the name that the client says: the endpoints, false if it is ours, undefined if it is nobody's.
function named(s) {
    const name = (s.variables.ssl_preread_server_name || '').toLowerCase();
    if (!NAME.test(name)) {
        return undefined;
    }
    const own = read(s, `hosts/${name}`);
    const dot = name.indexOf('.');
    return own === undefined && dot > 0 ? read(s, `hosts/*${name.slice(dot)}`) : own;
}

// $seaway_door: where a TLS connection goes in nginx itself, to be passed on or to be opened.
function door(s) {
    return `unix:${s.variables.seaway_run}/${Array.isArray(named(s)) ? 'pass' : 'https'}.sock`;
}

// $seaway_passed: the endpoint of a connection that is passed on.
function passed(s) {
    return pick(s, named(s));
}

// $seaway_endpoint: the endpoint of a connection to a port of the operator.
function endpoint(s) {
    return pick(s, read(s, `ports/${s.variables.protocol}-${s.variables.server_port}`));
}

// $seaway_failure: asked at the end of a session that did not reach its endpoint. Always empty, so that nothing is logged.
function failure(s) {
    const endpoint = s.variables.upstream_addr;
    if (endpoint && !endpoint.startsWith('unix:')) {
        try {
            sweep(s);
            fs.writeFileSync(mark(s, endpoint), '');
        } catch (e) {
            s.warn(`no mark for ${endpoint}: ${e.message}`);
        }
    }
    return '';
}

export default { door, passed, endpoint, failure };
