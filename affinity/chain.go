package affinity

import (
	"errors"
	"net/http"
	"net/netip"
)

// Chain is an [Affinity] of several. All of them are asked: the home comes from
// the first that has one, and so does the key, so the surest comes first, and
// one whose pins are Fixed before those whose pins can move. The key of a Fixed
// pin stands for a session, of which a client may have many, and counts only if
// no other member has one: in a drain the client then leaves once. All members
// are told of each answer, so that each remembers the client in its own way. But
// where a session is says nothing of where the client belongs: the answer to a
// request with a Fixed pin leaves the homes that the others have found.
//
// Trouble in one of them stops no other; their errors are joined.
type Chain []Affinity

// Find asks all. Status and Fixed are those of the member that gave the home;
// if none did, Status is the first that is not None.
func (c Chain) Find(r *http.Request) (Pin, error) {
	var (
		all  Pin
		pins = make([]Pin, len(c))
		errs []error

		session bool // the key is that of a Fixed pin
	)
	for i, a := range c {
		pin, err := a.Find(r)
		if err != nil {
			errs = append(errs, err)
		}
		pins[i] = pin
		if all.Key == "" || session && pin.Key != "" && !pin.Fixed {
			all.Key, session = pin.Key, pin.Fixed
		}
		switch {
		case all.Backend != "":
		case pin.Backend != "":
			all.Backend, all.Status, all.Fixed = pin.Backend, pin.Status, pin.Fixed
		case all.Status == None:
			all.Status = pin.Status
		}
	}
	all.Note = pins
	return all, errors.Join(errs...)
}

// Bind tells each member, with the pin that it found itself. The key is chosen
// as by Find.
func (c Chain) Bind(res *http.Response, found Pin, home string) (key string, err error) {
	var (
		errs    []error
		session bool
	)
	for i, a := range c {
		pin := c.own(found, i)
		at := home
		if found.Fixed && pin.Backend != "" {
			at = pin.Backend
		}
		own, err := a.Bind(res, pin, at)
		if err != nil {
			errs = append(errs, err)
		}
		if key == "" || session && own != "" && !pin.Fixed {
			key, session = own, pin.Fixed
		}
	}
	return key, errors.Join(errs...)
}

// Rewrite lets each member that is a [Rewriter] take its mark off.
func (c Chain) Rewrite(out *http.Request, found Pin) {
	for i, a := range c {
		if rw, ok := a.(Rewriter); ok {
			rw.Rewrite(out, c.own(found, i))
		}
	}
}

// Gone asks the member that gave the home, and returns nil if that is no [Goner].
func (c Chain) Gone(r *http.Request, found Pin) *http.Response {
	for i, a := range c {
		if own := c.own(found, i); own.Backend != "" {
			if g, ok := a.(Goner); ok && own.Fixed {
				return g.Gone(r, own)
			}
			return nil
		}
	}
	return nil
}

// Trust forwards to all members.
func (c Chain) Trust(addr func(*http.Request) netip.Addr, secure func(*http.Request) bool) {
	for _, a := range c {
		trust(addr, secure, a)
	}
}

// Validate refuses a nil member and joins the errors of all.
func (c Chain) Validate() error {
	var errs []error
	for _, a := range c {
		if a == nil {
			errs = append(errs, errors.New("affinity: chain: a member is nil"))
		}
		errs = append(errs, validate(a))
	}
	return errors.Join(errs...)
}

// own returns the pin that member i found. A found that is not from Find, as
// that of a caller who asked nobody, tells the members nothing.
func (c Chain) own(found Pin, i int) Pin {
	if pins, ok := found.Note.([]Pin); ok && len(pins) == len(c) {
		return pins[i]
	}
	return Pin{}
}
