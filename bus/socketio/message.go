package socketio

import "fmt"

// A message is what one member of a cluster sends to others. Each adapter encodes it
// in its own way. Which fields are set depends on the kind.
type message struct {
	kind  kind
	nsp   string
	uid   string // the sender; "" if the adapter doesn't say
	asker string // of an answer: the uid of the member that asked, "" if unknown
	id    string // of a request and of its answers; "" if no answer is wanted

	target
	event    []any    // broadcast, serverSideEmit: the event's name and its arguments
	rooms    []string // join, leave: the rooms to join or leave; roomList: the answer
	close    bool     // disconnect: whether to close the connection, too
	count    int      // clientCount
	value    any      // serverSideAnswer, ack, customRequest, customAnswer
	sockets  []Socket // socketList; socketIDList: only the IDs
	socketID string   // roomsOf
}

// asFetch returns a fetchSockets whose answers contain what an allRooms or a roomsOf
// asks for.
func (m *message) asFetch() *message {
	fetch := *m
	if m.kind == roomsOf {
		fetch.to = []string{m.socketID}
	}
	fetch.kind = fetchSockets
	return &fetch
}

// A target says which sockets a message is for, and how they get it.
type target struct {
	to, except   []string // rooms; an empty to selects everybody
	volatile     bool
	uncompressed bool
	timeout      float64 // for acknowledgements, in milliseconds
}

// kind says what a message is about. The first thirteen kinds are the types of
// messages in socket.io-adapter's ClusterAdapter, with the same numbers.
type kind int

const (
	initialHeartbeat kind = 1 + iota // answered by heartbeats
	heartbeat
	broadcast // with an ID: clients acknowledge it
	join
	leave
	disconnect
	fetchSockets
	socketList // answers fetchSockets
	serverSideEmit
	serverSideAnswer
	clientCount  // answers a broadcast with an ID: how many clients got it
	ack          // answers a broadcast with an ID, once for each client
	adapterClose // the member sends no more heartbeats

	// Legacy and PubSub only
	socketIDs
	socketIDList // answers socketIDs; PubSub reads it as a socketList
	allRooms
	roomList // answers allRooms and roomsOf
	done     // answers a join, leave or disconnect that has an ID

	// Legacy for Socket.IO 2 only
	roomsOf
	customRequest
	customAnswer
)

// answers tells whether a message of this kind answers a request.
func (k kind) answers() bool {
	switch k {
	case socketList, serverSideAnswer, clientCount, ack, socketIDList, roomList, done, customAnswer:
		return true
	}
	return false
}

// String completes the sentence "to …", for errors.
func (k kind) String() string {
	names := [...]string{
		initialHeartbeat: "ask for heartbeats", heartbeat: "send a heartbeat", broadcast: "broadcast",
		join: "make sockets join", leave: "make sockets leave", disconnect: "disconnect sockets",
		fetchSockets: "fetch sockets", socketList: "tell sockets", serverSideEmit: "emit to servers",
		serverSideAnswer: "answer a serverSideEmit", clientCount: "count clients", ack: "pass an acknowledgement on",
		adapterClose: "say goodbye", socketIDs: "ask for IDs of sockets", socketIDList: "tell IDs of sockets",
		allRooms: "ask for all rooms", roomList: "tell rooms", done: "confirm", roomsOf: "ask for the rooms of a socket",
		customRequest: "send a custom request", customAnswer: "answer a custom request",
	}
	if k <= 0 || int(k) >= len(names) {
		return fmt.Sprintf("send a message of kind %d", int(k))
	}
	return names[k]
}
