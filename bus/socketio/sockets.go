package socketio

import "slices"

// Sockets are the clients that are connected to the process of a [Cluster]. A
// [Bridge] has the members of a [hub.Hub] as Sockets.
//
// Both methods are called concurrently. They must return soon, because messages of
// other members wait meanwhile.
type Sockets interface {
	// Find describes the selected sockets.
	Find(Selection) []Socket
	// Do does something to the selected sockets and returns their number. For an
	// [Event] that wants acknowledgements it returns the number of sockets that will
	// give one.
	Do(Selection, Action) int
}

// A Selection selects the sockets that are in any of Rooms, or all sockets if Rooms
// is empty, other than those that are in any of Except. Each socket is in a room
// that is called by its ID.
type Selection struct{ Rooms, Except []string }

// Has tells whether a socket is selected.
func (s Selection) Has(socket Socket) bool {
	in := func(room string) bool { return room == socket.ID || slices.Contains(socket.Rooms, room) }
	return (len(s.Rooms) == 0 || slices.ContainsFunc(s.Rooms, in)) && !slices.ContainsFunc(s.Except, in)
}

// An Action is what a message of another member does to sockets: an [Event], a
// [Join], a [Leave] or a [Disconnect].
type Action interface{ action() }

// An Event is sent to clients (see [Sockets]) or to servers (see [ClusterOptions]).
type Event struct {
	Name string
	// Args are the arguments, of the types that the package's documentation lists
	// for what comes from other nodes. Several sockets may share them, so they must
	// not be changed.
	Args []any
	// Volatile is set for an event that a client may miss if it can't receive at the
	// moment.
	Volatile bool
	// Ack sends an acknowledgement to the sender of the event. It is nil if the
	// sender wants none. It is called once for each client, with what the client
	// answers, at any time and by any goroutine. It waits until Redis has the
	// acknowledgement.
	Ack func(answer any)
}

// Join makes sockets join rooms.
type Join struct{ Rooms []string }

// Leave makes sockets leave rooms.
type Leave struct{ Rooms []string }

// Disconnect disconnects sockets from the namespace. If Close is set, their
// connections are closed.
type Disconnect struct{ Close bool }

func (Event) action()      {}
func (Join) action()       {}
func (Leave) action()      {}
func (Disconnect) action() {}

// A Socket describes a client of the cluster as its node knows it.
type Socket struct {
	ID    string
	Rooms []string
	// Data is what the node keeps as socket.data.
	Data any
	// Handshake describes the request with which the client has connected, as the
	// node keeps it: headers, address, query, auth and so on.
	Handshake map[string]any
}
