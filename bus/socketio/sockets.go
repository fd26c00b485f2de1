package socketio

import "slices"

// Sockets are the clients that a [Cluster] has itself. A [Bridge] has those of a
// hub.Hub.
//
// Both methods are called concurrently and must return soon: messages of other
// members wait meanwhile.
type Sockets interface {
	// Find describes the sockets in a selection.
	Find(Selection) []Socket
	// Do does something to the sockets in a selection and returns their number;
	// of an [Event] that wants acknowledgements, the number of those that will
	// give one.
	Do(Selection, Action) int
}

// A Selection is the sockets that are in any of Rooms, or all sockets if there
// are none, without those that are in any of Except. Each socket is in a room
// that is called by its ID.
type Selection struct{ Rooms, Except []string }

// Has tells whether a socket is in the selection.
func (s Selection) Has(socket Socket) bool {
	in := func(room string) bool { return room == socket.ID || slices.Contains(socket.Rooms, room) }
	return (len(s.Rooms) == 0 || slices.ContainsFunc(s.Rooms, in)) && !slices.ContainsFunc(s.Except, in)
}

// An Action is what is done to sockets: an [Event], a [Join], a [Leave] or a
// [Disconnect].
type Action interface{ action() }

// An Event is what clients get, or servers (see [ClusterOptions]).
type Event struct {
	Name string
	// Args are as the package's documentation says of what comes from other
	// nodes. They may be shared and must not be changed.
	Args []any
	// Volatile is set for an event that a client may miss while it can't receive.
	Volatile bool
	// Ack sends an acknowledgement to who wants one; it is nil if nobody does.
	// Each client calls it once, with what the client answers. It waits for Redis,
	// and may be called at any time by any goroutine.
	Ack func(answer any)
}

// Join makes sockets join rooms.
type Join struct{ Rooms []string }

// Leave makes sockets leave rooms.
type Leave struct{ Rooms []string }

// Disconnect disconnects sockets from the namespace or, with Close, closes their
// connections.
type Disconnect struct{ Close bool }

func (Event) action()      {}
func (Join) action()       {}
func (Leave) action()      {}
func (Disconnect) action() {}

// Socket is a client of a cluster as its node describes it.
type Socket struct {
	ID    string
	Rooms []string
	// Data is what the node keeps as socket.data.
	Data any
	// Handshake is the client's first request as the node keeps it: headers,
	// address, query, auth and so on.
	Handshake map[string]any
}
