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
