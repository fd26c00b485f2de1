package upgrade

import (
	"net/http"

	"github.com/limpet-go/limpet/internal/httpfield"
)

// Is reports whether r asks for an upgrade of its connection (RFC 9110, section 7.8):
// whether it is a GET over HTTP/1.1 with an Upgrade field that is named in its
// Connection field. [Proxy.Protocol] tells whether the protocol may pass.
func Is(r *http.Request) bool {
	return r.Method == http.MethodGet && r.ProtoMajor == 1 && r.ProtoMinor >= 1 &&
		r.Header.Get("Upgrade") != "" && httpfield.HasToken(r.Header["Connection"], "upgrade")
}

// CanHijack reports whether [Tunnel.Serve] can take over the connection behind w. It
// looks through wrappers that have an Unwrap method, as [http.ResponseController]
// does. Call it before the backend is dialled.
func CanHijack(w http.ResponseWriter) bool {
	for {
		switch v := w.(type) {
		case http.Hijacker:
			return true
		case interface{ Unwrap() http.ResponseWriter }:
			w = v.Unwrap()
		default:
			return false
		}
	}
}
