package affinity

import (
	"cmp"
	"net/http"
)

// An Answer is what [Affinity.Bind] is told of a backend's answer to a client.
// Response, Request and Home are needed; the other fields may be left zero.
type Answer struct {
	// Response is the backend's answer. Bind may change its Header, and its Body
	// together with its ContentLength. Its Request is the one that was sent to
	// the backend, from which the affinity's mark may be gone: use Request.
	Response *http.Response

	// Request is the client's request as Find saw it. Bind must not change it.
	Request *http.Request

	// Found is what Find returned for Request.
	Found Pin

	// Home is the ID of the backend that keeps the client from now on. If it is
	// Found.Backend, the client stays where it was.
	Home string

	// StandIn is the ID of the backend that answered in place of Home, as when
	// Home failed this one request; "" if it was Home that answered. The client
	// belongs to Home nevertheless, but a session that this answer begins exists
	// only at the backend that answered.
	StandIn string

	// UnknownSession is called within Bind by an affinity that recognizes an
	// answer in which the backend says that it doesn't know the session of the
	// request, as [EngineIO] does. found is what that affinity found, which in a
	// [Chain] may differ from Found. If it is a Hit, the session has ended;
	// otherwise the request didn't reach the backend that has the session, and
	// many of those mean that the replicas have different secrets or no common
	// store. It runs on the path of the request. Nil is left uncalled.
	UnknownSession func(found Pin)

	// Keep is set by a gateway if the answer opens a tunnel. It is called within
	// Bind by an affinity that has the client's pin in a [Toucher], whether the
	// pin is new or not. The gateway touches the pin as long as the tunnel is
	// open: then a tunnel that outlives the idle lifetime of pins doesn't cost
	// the client its home. Nil is left uncalled.
	Keep func(pins Toucher, key, backend string)
}

// keep calls a.Keep, if somebody has set it, for the pin that s has under storeKey(key).
// Other answers don't pay for making that key.
func (a Answer) keep(s Store, storeKey func(string) string, key, backend string) {
	if a.Keep == nil {
		return
	}
	if t, ok := s.(Toucher); ok {
		a.Keep(t, storeKey(key), backend)
	}
}

// answeredBy returns the ID of the backend that gave the answer.
func (a Answer) answeredBy() string { return cmp.Or(a.StandIn, a.Home) }
