package balancer

import "strconv"

// A State says which clients a backend takes.
type State int32

const (
	Up       State = iota // takes every client
	Draining              // takes the clients that are pinned to it, and no new ones
	Down                  // takes nobody
)

// String returns "up", "draining" or "down".
func (s State) String() string {
	switch s {
	case Up:
		return "up"
	case Draining:
		return "draining"
	case Down:
		return "down"
	}
	return "State(" + strconv.Itoa(int(s)) + ")"
}

// Health is what the checks say of a backend, whatever the operator wants.
type Health int32

const (
	Well Health = iota // answers as expected, or hasn't been checked
	Sick               // answers, but not as expected
	Dead               // doesn't answer
)

// String returns "well", "sick" or "dead".
func (h Health) String() string {
	switch h {
	case Well:
		return "well"
	case Sick:
		return "sick"
	case Dead:
		return "dead"
	}
	return "Health(" + strconv.Itoa(int(h)) + ")"
}
