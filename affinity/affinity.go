package affinity

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"

	"github.com/limpet-go/limpet/internal/typednil"
)

// A Pin ties one client to one backend. Its zero value stands for a client of
// which nothing is known.
type Pin struct {
	// Backend is the ID of the client's home, the backend that it belongs to.
	// It is "" if the client has none.
	Backend string

	// Key stands for the client and stays the same while its home changes. A
	// balancer that has to place the client hashes the key, so that all
	// requests of the client, on all replicas of a gateway, agree on one new
	// home. Key is "" if the client can't be told apart from others.
	Key string

	// Status tells what Find made of the mark that the request carries.
	Status Status

	// Fixed says that the client can't move to another backend because its
	// session exists only at its home. If the home is gone, a [GoneHandler]
	// answers the client.
	Fixed bool

	// Note belongs to the affinity that made the pin. It carries what Find has
	// learnt to Rewrite, Bind and Gone. Nobody else uses it.
	Note any
}

func (p Pin) empty() bool {
	return p.Backend == "" && p.Key == "" && p.Status == None && !p.Fixed && p.Note == nil
}

// Status is what Find made of the mark in a request. A mark is whatever the
// affinity recognizes the client by: a cookie, a parameter or a session ID.
type Status uint8

const (
	None    Status = iota // the request has no mark: most likely the client is new
	Hit                   // the mark names the client's home
	Expired               // the mark is genuine but too old: the pin has a Key but no Backend
	Forged                // this affinity has not made the mark: the pin has no Backend and no Key
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

// An Affinity finds the pin of a request and binds a pin to an answer. Both
// methods may be called by many goroutines at once.
type Affinity interface {
	// Find returns the pin of the client that sent r. It reads r as the client
	// sent it and changes nothing in it.
	//
	// Find returns a pin to be used even with an error, which mostly is trouble
	// with a store. The caller logs the error and goes on: no client is refused
	// because its pin could not be found.
	Find(r *http.Request) (Pin, error)

	// Bind ties the client to a.Home. It is called once for each final answer
	// of a backend, including status 101, but not for other answers of 1xx, and
	// not for an answer that the gateway made itself. It is called even if the
	// client stays where it was, so that a pin with a sliding lifetime can be
	// renewed.
	//
	// Bind returns the key that Find will find in the client's next request:
	// a.Found.Key, unless Bind gave the client a new one. An error means that
	// the pin may not be remembered. The answer and the key are as valid as
	// without it.
	Bind(a Answer) (key string, err error)
}

// A Rewriter is an [Affinity] that removes its mark from the request before the
// backend sees it.
//
// out is the request to the backend. The slices in out.Header may be shared
// with the client's request: Rewrite must replace them and not write to them.
// Rewrite must not keep out or its Header, which serve another request once the
// answer has been written.
type Rewriter interface {
	Rewrite(out *http.Request, found Pin)
}

// A GoneHandler is an [Affinity] that answers a request whose pin is Fixed and
// whose home is down or removed. It tells the client that its session is over,
// in the form that the client's protocol has for it.
//
// Gone is not called because of a single failed dial. If Gone returns nil, the
// pin is treated as if it were not Fixed.
type GoneHandler interface {
	Gone(r *http.Request, found Pin) *http.Response
}

// A SessionEnder is a [GoneHandler] that can tell a node that one of its sessions is over,
// as the client would tell it. A gateway does so when the client has to leave a node that
// is alive, and is answered by Gone from then on: the node needn't wait for a client that
// doesn't come any more, and knows that it has left.
//
// out is a request of the session as the node would get it, after Rewrite, and found is the
// pin that Find has returned for it. EndSession turns out into the request that ends the
// session, by its method, its body and the fields that concern the body. It may change
// out.Header in place. It returns a name of the session, the same for all requests of the
// session and for none of another, or "" if no request can end it.
type SessionEnder interface {
	EndSession(out *http.Request, found Pin) (session string)
}

// A Truster is an [Affinity] or a [Key] that needs to know the client's
// address, or whether the client uses TLS.
//
// Forwarding headers such as X-Forwarded-For say that, if they can be trusted.
// The gateway, which judges them, calls Trust once, before the first request.
// Without that call the RemoteAddr and TLS fields of the request count. Trust
// leaves a function that the user has set as it is.
type Truster interface {
	Trust(addr func(*http.Request) netip.Addr, secure func(*http.Request) bool)
}

// A Validator is an [Affinity], a [Key] or a [Store] that can tell whether its
// fields make sense. A gateway calls Validate in its constructor and fails with
// the error, so that a mistake shows at the start and not with each request.
type Validator interface {
	Validate() error
}

// trust calls Trust of those parts that are a Truster.
func trust(addr func(*http.Request) netip.Addr, secure func(*http.Request) bool, parts ...any) {
	for _, p := range parts {
		if t, ok := p.(Truster); ok {
			t.Trust(addr, secure)
		}
	}
}

// validate calls Validate of those parts that are a Validator and joins their
// errors. A part that is a nil pointer is an error, too.
func validate(parts ...any) error {
	var errs []error
	for _, p := range parts {
		if err := typednil.Check(p); err != nil {
			errs = append(errs, fmt.Errorf("affinity: %w", err))
		} else if v, ok := p.(Validator); ok {
			errs = append(errs, v.Validate())
		}
	}
	return errors.Join(errs...)
}
