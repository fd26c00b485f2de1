package affinity

import (
	"errors"
	"net/http"
	"net/netip"
)

// A Pin is the tie of one client to one backend. Its zero value is a client
// of whom nothing is known.
type Pin struct {
	// Backend is the ID of the client's home, "" if it has none.
	Backend string

	// Key stands for the client and stays the same while its home changes.
	// Who has to place the client hashes it, so that all its requests, on all
	// replicas, agree on one new home. "" if the client can't be told apart.
	Key string

	// Status tells how the request's mark was judged.
	Status Status

	// Fixed says that the client can't move to another backend, as its session
	// exists only at its home. If the home is gone, a [GoneHandler] has the answer.
	Fixed bool

	// Note belongs to the affinity that made the pin. It carries what Find
	// learnt to Rewrite and Bind, and nobody else looks into it.
	Note any
}

// Status is what Find made of the mark in a request.
type Status uint8

const (
	None    Status = iota // the request has no mark: most likely a new client
	Hit                   // the mark names the client's home
	Expired               // the mark is genuine but too old: the pin has no Backend, but its Key
	Forged                // the mark isn't one that this affinity made: no Backend and no Key
	Unknown               // the mark names something that this affinity doesn't know
)

// String returns the status as one lower-case word.
func (s Status) String() string {
	switch s {
	case None:
		return "none"
	case Hit:
		return "hit"
	case Expired:
		return "expired"
	case Forged:
		return "forged"
	case Unknown:
		return "unknown"
	}
	return "invalid"
}

// An Affinity finds the pin of a request and binds a pin onto an answer. Both
// methods may be called by many goroutines at once.
type Affinity interface {
	// Find returns the pin of the client that sent r, as the client sent it,
	// and changes nothing in r. An error, which is trouble with a store most
	// of the time, comes with a Pin all the same, and that Pin is to be used:
	// a client is never refused because its pin could not be found.
	Find(r *http.Request) (Pin, error)

	// Bind ties the client to a.Home. It is called once for each final answer of
	// a backend, 101 among them, but never for 1xx and never for an answer that
	// the gateway made itself. It is also called if the client stays where it was,
	// which gives a sliding pin its chance to slide.
	//
	// Bind returns the key that Find will find in the client's next request:
	// a.Found.Key, unless it gave the client a new one. An error means that the
	// pin may not be remembered; the answer and the key are as good as they were.
	Bind(a Answer) (key string, err error)
}

// A Rewriter is an [Affinity] that takes its mark off the request before the
// backend sees it. out is the request to the backend; the slices in its Header
// may be shared with the client's request and must be replaced, not written to.
// Once the answer has been written, out and its Header serve another request.
type Rewriter interface {
	Rewrite(out *http.Request, found Pin)
}

// A GoneHandler is an [Affinity] that answers for a Fixed pin whose home is Down or
// removed, in the words by which the client's protocol says that its session
// is over. It is not asked because of a mere failed dial. If Gone returns nil,
// the pin is treated as if it were not Fixed.
type GoneHandler interface {
	Gone(r *http.Request, found Pin) *http.Response
}

// A Truster is an [Affinity] or a [Key] that needs to know the client's address
// or whether the client came over TLS. Whoever judges forwarding headers calls
// Trust once, before the first request; without it, RemoteAddr and TLS of the
// request are believed. A function that the user has set is kept.
type Truster interface {
	Trust(addr func(*http.Request) netip.Addr, secure func(*http.Request) bool)
}

// A Validator is an [Affinity], a [Key] or a [Store] whose fields can be wrong
// in a way that is better said at the start than on each request. A gateway
// calls Validate in its constructor and fails with its error.
type Validator interface {
	Validate() error
}

// trust hands the two functions to those of the parts that want them.
func trust(addr func(*http.Request) netip.Addr, secure func(*http.Request) bool, parts ...any) {
	for _, p := range parts {
		if t, ok := p.(Truster); ok {
			t.Trust(addr, secure)
		}
	}
}

// validate joins what those of the parts say that can be validated.
func validate(parts ...any) error {
	var errs []error
	for _, p := range parts {
		if v, ok := p.(Validator); ok {
			errs = append(errs, v.Validate())
		}
	}
	return errors.Join(errs...)
}
