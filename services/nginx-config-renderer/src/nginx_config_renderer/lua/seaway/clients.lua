-- Clients that must show a certificate: they are asked for it in the handshake, and judged at each request.
--
-- A session of theirs is never resumed. In TLS 1.3 a session that was opened for one name may be resumed for another, and it would be as good
-- there as the certificate that was shown here (CVE-2025-23419); and who was let in once would be so after the authorities have changed.

local ffi = require("ffi")
local request = require("resty.core.base").get_request
local ssl = require("ngx.ssl")

ffi.cdef([[
void *ngx_http_lua_ffi_get_req_ssl_pointer(void *r);
void *SSL_get_session(const void *ssl);
int SSL_SESSION_set1_id_context(void *session, const unsigned char *context, unsigned int length);
]])

local var = ngx.var

local BAD_REQUEST, MISDIRECTED = "@400", "@421"
local NEVER = "seaway: never" -- a context that no server has, by which OpenSSL tells whose sessions it may resume

local clients = { FORBIDDEN = "@403" }

-- Of an entry of the table. Without authorities nobody gets in.
function clients.decode(data)
    local client = { verify = data.v, depth = data.d, shown = data.s, authorities = nil }
    if data.ca ~= nil then
        local reason
        client.authorities, reason = ssl.parse_pem_cert(data.ca)
        if client.authorities == nil then
            ngx.log(ngx.ERR, "authorities of clients cannot be used: ", reason)
        end
    end
    return client
end

-- Runs in the handshake. False if it cannot go on.
function clients.ask(client)
    if client.authorities == nil then
        return true
    end
    local done, reason = ssl.verify_client(client.authorities, client.depth)
    local connection = done and ffi.C.ngx_http_lua_ffi_get_req_ssl_pointer(request()) or nil
    local session = connection ~= nil and ffi.C.SSL_get_session(connection) or nil
    if session == nil or ffi.C.SSL_SESSION_set1_id_context(session, NEVER, #NEVER) ~= 1 then
        ngx.log(ngx.ERR, "a client cannot be asked for its certificate: ", reason)
        return false
    end
    return true
end

-- Lets the backend know.
local function tell(verdict, shown)
    var.seaway_client_verify = verdict
    var.seaway_client_subject = var.ssl_client_s_dn or ""
    var.seaway_client_issuer = var.ssl_client_i_dn or ""
    if shown then
        var.seaway_client_certificate = var.ssl_client_escaped_cert or ""
    end
end

-- What a client is answered whatever it shows; nil if that matters. `named`: in the handshake it has named this host.
function clients.refuse(client, named)
    if client == nil or client.authorities == nil then
        return clients.FORBIDDEN
    elseif not named then
        return MISDIRECTED
    end
    return nil
end

-- What a client is answered; nil if it may come in.
function clients.judge(client, named)
    local refused = clients.refuse(client, named)
    if refused ~= nil then
        return refused
    end
    local verdict = var.ssl_client_verify
    if verdict ~= "SUCCESS" and client.verify ~= "optional_no_ca" and not (verdict == "NONE" and client.verify == "optional") then
        return BAD_REQUEST
    end
    tell(verdict, client.shown)
    return nil
end

return clients
