package socketio

import "fmt"

// message is what one member of a cluster tells the others, whatever its
// generation makes of it. Which fields are set depends on the kind.
type message struct {
	kind  kind
	nsp   string
	uid   string // the sender's; "" where the generation doesn't say
	asker string // of an answer: the uid of who asked, as far as it is known
	id    string // of a request and of its answer; "" where no answer is wanted

	target
	event    []any    // broadcast, serverSideEmit: the event's name and its arguments
	rooms    []string // join, leave: these rooms; roomList: the answer
	close    bool     // disconnect: the connection too
	count    int      // clientCount
	value    any      // serverSideAnswer, ack, customRequest, customAnswer
	sockets  []Socket // socketList; socketIDList: only the IDs
	socketID string   // roomsOf
}

// asFetch returns the fetchSockets whose answers hold what an allRooms or a
// roomsOf asks for.
func (m *message) asFetch() *message {
	fetch := *m
	if m.kind == roomsOf {
		fetch.to = []string{m.socketID}
	}
	fetch.kind = fetchSockets
	return &fetch
}

// target is whom a message is for.
type target struct {
	to, except   []string // rooms; nobody is excepted or everybody meant when empty
	volatile     bool
	uncompressed bool
	timeout      float64 // for acknowledgements, in milliseconds
}

// kind says what a message is about. The first thirteen are the types of a
// cluster message in socket.io-adapter.
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
	clientCount  // answers a broadcast with an ID: so many clients got it
	ack          // answers a broadcast with an ID, once for each client
	adapterClose // no more heartbeats will come

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

// answers tells whether messages of this kind go back to who asked.
func (k kind) answers() bool {
	switch k {
	case socketList, serverSideAnswer, clientCount, ack, socketIDList, roomList, done, customAnswer:
		return true
	}
	return false
}

// String says what one wants who sends it.
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
