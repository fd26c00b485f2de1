package affinity

import (
	"iter"
	"time"
)

// When a process takes the place of another one (see package limpet's Takeover), two things
// would be lost that affinities keep in the memory of the process only: the secrets that those
// without Secrets have made, and the pins in an [LRU]. Both are known by the places of their
// affinities within a [Chain], which are made of their kinds and names, as is a store. So they
// survive a change of the list around them. Affinities of other packages aren't known here.

// RandomSecrets returns the secrets that a and the members of a [Chain] have made at random,
// as they have no Secrets.
func RandomSecrets(a Affinity) map[string][]byte {
	all := make(map[string][]byte)
	for place, m := range members(a) {
		switch m := m.(type) {
		case *Cookie:
			m.once.Do(m.init)
			if m.random != nil {
				all[place] = m.random
			}
		case *EngineIO:
			m.once.Do(m.init)
			if m.random != nil {
				all[place] = m.random
			}
		}
	}
	return all
}

// InheritSecrets has a and the members of a [Chain] use what RandomSecrets has returned in
// another process, in place of random secrets of their own. It must be called before they are
// used or validated.
func InheritSecrets(a Affinity, secrets map[string][]byte) {
	for place, m := range members(a) {
		switch m := m.(type) {
		case *Cookie:
			m.random = secrets[place]
		case *EngineIO:
			m.random = secrets[place]
		}
	}
}

// A StoredPin is a pin in an [LRU].
type StoredPin struct {
	Place      string // of the LRU
	Key        string
	Backend    string
	Born, Used time.Time
}

// StoredPins iterates over the pins in the LRUs of a and the members of a [Chain] that were
// bound or used at since or later, those of each part of an LRU from the one that wasn't used
// for longest on. Requests may be served meanwhile.
func StoredPins(a Affinity, since time.Time) iter.Seq[StoredPin] {
	return func(yield func(StoredPin) bool) {
		for place, l := range storesOf[*LRU](a) {
			for _, s := range l.entries(since) {
				s.Place = place
				if !yield(s) {
					return
				}
			}
		}
	}
}

// InheritPin adds a pin that StoredPins has returned in another process, unless the LRU has one
// for its key that was bound later, or has none of its place.
func InheritPin(a Affinity, pin StoredPin) {
	for place, l := range storesOf[*LRU](a) {
		if place == pin.Place {
			l.inherit(pin)
		}
	}
}

// Touchers iterates over the stores of a and the members of a [Chain] that are a [Toucher], with
// the place of each, by which the store of another process is found again.
func Touchers(a Affinity) iter.Seq2[string, Toucher] {
	return storesOf[Toucher](a)
}

// members iterates over a and the members of a Chain, with the place of each.
func members(a Affinity) iter.Seq2[string, Affinity] {
	return func(yield func(string, Affinity) bool) { eachMember(a, yield) }
}

func eachMember(a Affinity, yield func(string, Affinity) bool) bool {
	place := ""
	switch a := a.(type) {
	case Chain:
		for _, m := range a {
			if !eachMember(m, yield) {
				return false
			}
		}
		return true
	case *Cookie:
		place = "cookie " + a.Cookie.Name
	case *EngineIO:
		place = "engineio " + a.Name
	case *Table:
		place = "table " + a.Name
	case *AppCookie:
		place = "appcookie " + a.Name
	}
	return yield(place, a)
}

// storesOf iterates over those stores of a and the members of a Chain that are a T.
func storesOf[T Store](a Affinity) iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		for place, m := range members(a) {
			var store Store
			switch m := m.(type) {
			case *EngineIO:
				m.once.Do(m.init)
				store = m.table.store()
			case *Table:
				store = m.store()
			case *AppCookie:
				store = m.store()
			}
			if s, ok := store.(T); ok && !yield(place, s) {
				return
			}
		}
	}
}

// entries returns the pins that were bound or used at since or later.
func (l *LRU) entries(since time.Time) (all []StoredPin) {
	l.shard("") // makes l.pins
	for i := range l.pins.parts {
		s := &l.pins.parts[i]
		s.mu.Lock()
		for _, key := range s.pins.Keys() { // the one that wasn't used for longest is the first
			if e, ok := s.pins.Peek(key); ok && !e.used.Before(since) {
				all = append(all, StoredPin{Key: key, Backend: e.backend, Born: e.born, Used: e.used})
			}
		}
		s.mu.Unlock()
	}
	return all
}

// inherit adds a pin of another process.
func (l *LRU) inherit(pin StoredPin) {
	s := l.shard(pin.Key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.pins.Peek(pin.Key); ok && e.born.After(pin.Born) {
		return
	}
	s.pins.Add(pin.Key, &entry{backend: pin.Backend, born: pin.Born, used: pin.Used})
}
