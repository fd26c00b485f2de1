package socketio

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/limpet-go/limpet/bus/socketio/internal/jsvalue"
)

// Legacy is the adapter of socket.io-redis 5, of Socket.IO 2, and with V3 of
// socket.io-redis 6.0, of Socket.IO 3. (6.1 is for Socket.IO 4: its nodes need
// [PubSub].)
//
// The nodes can do less than later ones. Joining, leaving and disconnecting is for
// single sockets, which are named by their IDs. A broadcast can except sockets, not
// rooms. There is no serverSideEmit.
type Legacy struct {
	// Prefix is the option key of the nodes. "" means "socket.io".
	Prefix string
	// V3 is set for nodes of Socket.IO 3. The two versions misread each other's
	// requests.
	V3 bool
}

func (l Legacy) classic() classic        { return classic{l.Prefix} }
func (l Legacy) check() error            { return nil }
func (l Legacy) sharded() bool           { return false }
func (l Legacy) singleSockets() bool     { return true }
func (l Legacy) stream(_ string) *stream { return nil }
func (l Legacy) roomChannel(nsp, room string) string {
	return l.classic().roomChannel(nsp, room)
}

func (l Legacy) channels(nsp, _ string) (all, answers []string) {
	c := l.classic()
	return []string{c.requestChannel(nsp), c.channel(nsp)}, []string{c.responseChannel(nsp)}
}

// legacyNames are the names in which the two versions differ.
type legacyNames struct {
	version, id, sockets string
	types                []kind // of requests, in the order of their numbers
}

// names returns the names of the version.
func (l Legacy) names() *legacyNames {
	if l.V3 {
		return &legacyNames{"Socket.IO 3", "requestId", "sockets", []kind{socketIDs, allRooms, join, leave, disconnect}}
	}
	return &legacyNames{"Socket.IO 2", "requestid", "clients", []kind{
		socketIDs, roomsOf, allRooms, join, leave, customRequest, disconnect,
	}}
}

// requestFor asks for the IDs of sockets, since the nodes can't describe sockets.
func (l Legacy) requestFor(m *message) *message {
	if m.kind != fetchSockets {
		return m
	}
	ids := *m
	ids.kind = socketIDs
	return &ids
}

func (l Legacy) encode(m *message) ([]frame, error) {
	switch m.kind {
	case broadcast:
		return l.broadcast(m)
	case socketIDList, roomList, done, customAnswer:
		return l.answer(m)
	case join, leave, disconnect:
		return l.perSocket(m)
	}
	var more object
	switch m.kind {
	case socketIDs:
		if len(m.except) > 0 {
			return nil, unsupported(l.names().version, "fetch sockets and except some")
		}
		more = object{{"rooms", list(m.to)}}
	case roomsOf:
		more = object{{"sid", m.socketID}}
	case customRequest:
		value, err := jsvalue.Normalize(m.value)
		if err != nil {
			return nil, err
		}
		more = object{{"data", value}}
	}
	f, err := l.request(m, more)
	return []frame{f}, err
}

func (l Legacy) broadcast(m *message) ([]frame, error) {
	switch {
	case m.id != "":
		return nil, unsupported(l.names().version, "acknowledge a broadcast")
	case !areSocketIDs(m.nsp, m.except):
		return nil, unsupported(l.names().version, "except rooms, only sockets by their IDs")
	}
	packetType := int64(eventPacket)
	if !l.V3 { // the sender of Socket.IO 3 doesn't look for binary data
		packetType = binaryEventPacket
	}
	f, err := l.classic().broadcast(m, jsvalue.OldDates, packetType)
	return []frame{f}, err
}

// perSocket returns a request for each socket and each room, since a request names
// one.
func (l Legacy) perSocket(m *message) ([]frame, error) {
	if len(m.to) == 0 || len(m.except) > 0 || !areSocketIDs(m.nsp, m.to) {
		return nil, unsupported(l.names().version, "join, leave or disconnect other than single sockets by their IDs")
	}
	var frames []frame
	for _, sid := range m.to {
		var each []object
		if m.kind == disconnect {
			each = []object{{{"sid", sid}, {"close", m.close}}}
		}
		for _, room := range m.rooms {
			each = append(each, object{{"sid", sid}, {"room", jsvalue.Valid(room)}})
		}
		for _, more := range each {
			f, err := l.request(m, more)
			if err != nil {
				return nil, err
			}
			frames = append(frames, f)
		}
	}
	return frames, nil
}

// request returns the frame of a request, whose type is a number that depends on the
// version.
func (l Legacy) request(m *message, more object) (frame, error) {
	names := l.names()
	t := slices.Index(names.types, m.kind)
	if t < 0 {
		return frame{}, unsupported(names.version, m.kind.String())
	}
	request := append(object{{names.id, m.id}, {"type", int64(t)}}, more...)
	return frame{channel: l.classic().requestChannel(m.nsp), data: jsvalue.AppendJSON(nil, request)}, nil
}

// answer returns the frame of an answer. Its kind follows from which properties it
// has.
func (l Legacy) answer(m *message) ([]frame, error) {
	names := l.names()
	answer := object{{names.id, m.id}}
	switch m.kind {
	case socketIDList:
		answer = append(answer, property{names.sockets, idList(m.sockets)})
	case roomList:
		answer = append(answer, property{"rooms", list(m.rooms)})
	case customAnswer:
		value, err := jsvalue.Normalize(m.value)
		if err != nil {
			return nil, err
		}
		answer = append(answer, property{"data", value})
	}
	return []frame{{channel: l.classic().responseChannel(m.nsp), data: jsvalue.AppendJSON(nil, answer)}}, nil
}

func (l Legacy) decode(nsp, channel string, data []byte) (*message, error) {
	c := l.classic()
	v, err := jsvalue.Parse(data)
	if err != nil {
		return nil, err
	}
	if channel != c.requestChannel(nsp) && channel != c.responseChannel(nsp) {
		return readBroadcast(nsp, v)
	}
	o, _ := v.(map[string]any)
	f, names := fields(o), l.names()
	m := &message{nsp: nsp, id: f.text(names.id)}
	if channel == c.responseChannel(nsp) {
		l.readAnswer(m, f)
		return m, nil
	}
	if m.kind = f.kind(names.types); m.kind == 0 {
		return nil, fmt.Errorf("a request of type %v", f["type"])
	}
	switch m.kind {
	case socketIDs:
		m.to = f.names("rooms")
	case roomsOf:
		m.socketID = f.text("sid")
	case join, leave, disconnect:
		m.to = []string{f.text("sid")}
		m.close = get[bool](f, "close")
		if room, ok := jsvalue.PropertyName(f["room"]); ok {
			m.rooms = []string{room}
		}
	case customRequest:
		m.value = f["data"]
	}
	return m, nil
}

func (l Legacy) readAnswer(m *message, f fields) {
	sockets, isSockets := f[l.names().sockets].([]any)
	_, isRooms := f["rooms"].([]any)
	value, isCustom := f["data"]
	switch {
	case isSockets:
		m.kind, m.sockets = socketIDList, readSockets(sockets)
	case isRooms:
		m.kind, m.rooms = roomList, f.names("rooms")
	case isCustom:
		m.kind, m.value = customAnswer, value
	default:
		m.kind = done
	}
}

// areSocketIDs tells whether all names are IDs of sockets in the form that nodes
// give them: 20 characters (base64id), with the namespace and a # before them in
// Socket.IO 2.
func areSocketIDs(nsp string, names []string) bool {
	for _, s := range names {
		if !looksLikeSocketID(strings.TrimPrefix(s, nsp+"#")) {
			return false
		}
	}
	return true
}

// looksLikeSocketID tells whether a name has the length of an ID, in UTF-16 units as
// JavaScript counts.
func looksLikeSocketID(room string) bool { return len(utf16.Encode([]rune(room))) == 20 }
