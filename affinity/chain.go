package affinity

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/limpet-go/limpet/internal/typednil"
)

// Chain is an [Affinity] made of several. Find asks all of them. The client's
// home is that of the first member that has found one, and the client's key is
// that of the first member that has one: put the most reliable member first.
// Put a member whose pins are Fixed before those whose pins can move.
//
// The key of a Fixed pin stands for a session, and a client may have many
// sessions. So it counts only if no other member has a key. Otherwise a client
// with several sessions would have several keys, and leave a draining backend
// once for each of them.
//
// Bind tells all members of each answer, so that each remembers the client in
// its own way. There is one exception to the home that they are told. A
// request with a Fixed pin goes to the node of its session, wherever its client's
// home is. So on its answer a member that has found a home of its own is told that
// home, and not the node's.
//
// An error of one member doesn't stop the others. Their errors are joined.
type Chain []Affinity

// Find asks all members. The Status and Fixed of the pin are those of the
// member that has found the home. If no member has, Status is the first that is
// not None.
func (c Chain) Find(r *http.Request) (Pin, error) {
	var (
		all     Pin
		found   foundPins
		errs    []error
		session bool // all.Key is that of a Fixed pin
	)
	for i, a := range c {
		pin, err := a.Find(r)
		if err != nil {
			errs = append(errs, err)
		}
		found.add(c, i, pin)
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
	all.Note = found.note()
	return all, errors.Join(errs...)
}

// foundPins collects what the members of a chain have found, for the Note of the
// chain's pin. Most requests carry one mark, and most pins have no Note. The
// chain's pin is then the same as its member's, and the Note says only which
// member that is, which allocates nothing.
type foundPins struct {
	one onlyPin     // the member that has found pin
	pin Pin         // the first that isn't empty
	all *memberPins // nil if one Pin can stand for all
}

// An onlyPin is the Note of a pin that only this member of the chain has found.
// A byte in an interface isn't allocated.
type onlyPin uint8

// memberPins is the Note of a pin of a chain: the pins of all members.
type memberPins struct {
	pins []Pin
	two  [2]Pin // the array of pins for a chain of two, to save an allocation
}

func newMemberPins(n int) *memberPins {
	m := &memberPins{}
	if m.pins = m.two[:]; n != len(m.two) {
		m.pins = make([]Pin, n)
	}
	return m
}

// add takes the pin that member i of c has found.
func (f *foundPins) add(c Chain, i int, pin Pin) {
	if f.all != nil {
		f.all.pins[i] = pin
		return
	}
	if pin.empty() {
		return
	}
	if f.pin.empty() && pin.Note == nil && i <= math.MaxUint8 {
		f.one, f.pin = onlyPin(i), pin
		return
	}
	f.all = newMemberPins(len(c))
	f.all.pins[f.one] = f.pin
	f.all.pins[i] = pin
}

func (f *foundPins) note() any {
	switch {
	case f.all != nil:
		return f.all
	case f.pin.empty():
		return nil
	}
	return f.one
}

// Bind calls Bind of each member, with the pin that this member has found. It
// chooses the key as Find does.
func (c Chain) Bind(a Answer) (key string, err error) {
	var (
		errs    []error
		session bool // key is that of a Fixed pin
	)
	for i, member := range c {
		own := a
		own.Found = c.own(a.Found, i)
		if a.Found.Fixed && own.Found.Backend != "" {
			own.Home = own.Found.Backend
		}
		k, err := member.Bind(own)
		if err != nil {
			errs = append(errs, err)
		}
		fixed := own.Found.Fixed || own.Found.Key == "" && bindsSessions(member)
		if key == "" || session && k != "" && !fixed {
			key, session = k, fixed
		}
	}
	return key, errors.Join(errs...)
}

// bindsSessions reports whether the pins that a binds are Fixed. Those of a GoneHandler
// are.
func bindsSessions(a Affinity) bool {
	_, chain := a.(Chain)
	_, gone := a.(GoneHandler)
	return gone && !chain
}

// Rewrite calls Rewrite of each member that is a [Rewriter].
func (c Chain) Rewrite(out *http.Request, found Pin) {
	for i, a := range c {
		if rw, ok := a.(Rewriter); ok {
			rw.Rewrite(out, c.own(found, i))
		}
	}
}

// Gone calls Gone of the member that has found the home. It returns nil if that
// member is no [GoneHandler].
func (c Chain) Gone(r *http.Request, found Pin) *http.Response {
	for i, a := range c {
		if own := c.own(found, i); own.Backend != "" {
			if g, ok := a.(GoneHandler); ok && own.Fixed {
				return g.Gone(r, own)
			}
			return nil
		}
	}
	return nil
}

// EndSession calls EndSession of the member that has found the home. It returns "" if that
// member is no [SessionEnder].
func (c Chain) EndSession(out *http.Request, found Pin) (session string) {
	for i, a := range c {
		if own := c.own(found, i); own.Backend != "" {
			if e, ok := a.(SessionEnder); ok && own.Fixed {
				return e.EndSession(out, own)
			}
			return ""
		}
	}
	return ""
}

// Trust calls Trust of each member that is a [Truster].
func (c Chain) Trust(addr func(*http.Request) netip.Addr, secure func(*http.Request) bool) {
	for _, a := range c {
		trust(addr, secure, a)
	}
}

// Validate refuses a chain without members, a nil member, and members that get
// in each other's way: two that set the same cookie, two EngineIO for the same
// path, and an EngineIO behind a member whose pins can move. It joins the
// errors of all members.
func (c Chain) Validate() error {
	all := c.flat()
	if len(all) == 0 {
		return errors.New("affinity: chain: it has no members, so no client would be pinned")
	}
	var (
		errs    []error
		members []Affinity // that aren't nil
	)
	for _, a := range all {
		if a == nil {
			errs = append(errs, errors.New("affinity: chain: a member is nil"))
			continue
		}
		errs = append(errs, validate(a))
		if typednil.Check(a) == nil {
			members = append(members, a)
		}
	}
	return errors.Join(append(errs, conflicts(members)...)...)
}

// flat returns the members of c. A chain among them is replaced by its own
// members.
func (c Chain) flat() []Affinity {
	var all []Affinity
	for _, a := range c {
		if inner, ok := a.(Chain); ok {
			all = append(all, inner.flat()...)
		} else {
			all = append(all, a)
		}
	}
	return all
}

// conflicts returns an error for each member that undoes what another one does.
// The members have been validated.
func conflicts(members []Affinity) []error {
	var (
		errs  []error
		moves Affinity // a member whose pins can move
		paths []string // of EngineIO
	)
	sets := make(map[string]bool) // by the name of the cookie
	for _, a := range members {
		if name, taken := takes(sets, a); taken {
			errs = append(errs, fmt.Errorf("affinity: chain: two members set the cookie %q, and each would take the other's: give one another name", name))
		}
		switch a := a.(type) {
		case *EngineIO:
			if moves != nil {
				errs = append(errs, fmt.Errorf("affinity: chain: %T stands before an EngineIO, so a session would be sought at the home that this one names, "+
					"and answered with \"Session ID unknown\" there: put the EngineIO first", moves))
			}
			if slices.ContainsFunc(paths, func(p string) bool { return strings.HasPrefix(p, a.Path) || strings.HasPrefix(a.Path, p) }) {
				errs = append(errs, fmt.Errorf("affinity: chain: two EngineIO serve the path %q, and each would change the other's session IDs: one is enough", a.Path))
			}
			paths = append(paths, a.Path)
		case *Cookie, *CookieMap, *AppCookie, *Route, *Table:
			moves = a
		}
	}
	return errs
}

// takes adds the names of the cookies that a sets or changes to taken. It
// returns one of them that had been taken before, if any.
func takes(taken map[string]bool, a Affinity) (name string, already bool) {
	var names []string
	switch a := a.(type) {
	case *Cookie:
		for _, n := range a.names {
			names = append(names, n.name)
		}
	case *AppCookie:
		names = []string{a.Name}
	case *Route:
		if a.Set != nil {
			names = []string{a.Cookie}
		}
	}
	for _, n := range names {
		if taken[n] {
			name, already = n, true
		}
		taken[n] = true
	}
	return name, already
}

// own returns the pin that member i has found. It returns the zero Pin if found
// doesn't come from Find of this chain.
func (c Chain) own(found Pin, i int) Pin {
	switch note := found.Note.(type) {
	case onlyPin:
		if int(note) == i {
			found.Note = nil
			return found
		}
	case *memberPins:
		if len(note.pins) == len(c) {
			return note.pins[i]
		}
	}
	return Pin{}
}
