package socketio

import (
	"fmt"
	"slices"
	"strings"

	"github.com/limpet-go/limpet/bus/socketio/internal/jsvalue"
)

// PubSub is the adapter that createAdapter of @socket.io/redis-adapter makes, in
// version 8 and also in 7, for Socket.IO 4. Nodes with socket.io-redis 6.1
// understand it, too. Clients of nodes with a version before 8 get something else
// for a Date.
type PubSub struct {
	// Prefix is the option key of the nodes. "" means "socket.io".
	Prefix string
	// SpecificResponses is the option publishOnSpecificResponseChannel of the nodes:
	// an answer is sent only to the node that asked. It matters only to a [Cluster].
	SpecificResponses bool
}

func (p PubSub) classic() classic        { return classic{p.Prefix} }
func (p PubSub) check() error            { return nil }
func (p PubSub) sharded() bool           { return false }
func (p PubSub) singleSockets() bool     { return false }
func (p PubSub) stream(_ string) *stream { return nil }
func (p PubSub) roomChannel(nsp, room string) string {
	return p.classic().roomChannel(nsp, room)
}

func (p PubSub) channels(nsp, uid string) (all, answers []string) {
	c := p.classic()
	return []string{c.requestChannel(nsp), c.channel(nsp)},
		[]string{c.responseChannel(nsp), c.responseChannel(nsp) + uid + "#"}
}

// pubSubTypes are the kinds of messages by their type, in requests and in the
// answers that have a type. A serverSideAnswer has the type of a serverSideEmit.
var pubSubTypes = [...]kind{
	socketIDs, allRooms, join, leave, disconnect, fetchSockets, typeServerSide: serverSideEmit, broadcast,
	typeClientCount: clientCount, typeAck: ack,
}

// The types of answers. Other answers have none: their properties tell their kind.
const (
	typeServerSide  = 6
	typeClientCount = 8
	typeAck         = 9
)

// requestFor fetches a socket to learn its rooms.
func (p PubSub) requestFor(m *message) *message {
	if m.kind == roomsOf {
		return m.asFetch()
	}
	return m
}

func (p PubSub) encode(m *message) ([]frame, error) {
	if m.kind == broadcast && m.id == "" {
		f, err := p.classic().broadcast(m, jsvalue.Timestamps, eventPacket)
		return []frame{f}, err
	}
	var f frame
	var err error
	if m.kind.answers() {
		f, err = p.answer(m)
	} else {
		f, err = p.request(m)
	}
	return []frame{f}, err
}

// request returns the frame of a request to all nodes.
func (p PubSub) request(m *message) (frame, error) {
	t := slices.Index(pubSubTypes[:], m.kind)
	if t < 0 {
		return frame{}, unsupported("@socket.io/redis-adapter", m.kind.String())
	}
	var request object
	if m.uid != "" {
		request = append(request, property{"uid", m.uid})
	}
	if m.id != "" {
		request = append(request, property{"requestId", m.id})
	}
	request = append(request, property{"type", int64(t)})
	encode := jsvalue.AppendJSON
	switch m.kind {
	case socketIDs:
		request = append(request, property{"rooms", list(m.to)})
	case fetchSockets:
		request = append(request, property{"opts", m.opts(false)})
	case join, leave:
		request = append(request, property{"opts", m.opts(false)}, property{"rooms", list(m.rooms)})
	case disconnect:
		request = append(request, property{"opts", m.opts(false)}, property{"close", m.close})
	case serverSideEmit, broadcast:
		event, err := jsvalue.Normalize(m.event)
		if err != nil {
			return frame{}, err
		}
		if m.kind == serverSideEmit {
			request = append(request, property{"data", event})
			break
		}
		encode = jsvalue.Timestamps.AppendMsgpack
		packet := object{{"type", int64(eventPacket)}, {"data", event}, {"nsp", m.nsp}}
		request = append(request, property{"packet", packet}, property{"opts", m.opts(true)})
	}
	return frame{channel: p.classic().requestChannel(m.nsp), data: encode(nil, request)}, nil
}

// answer returns the frame of an answer.
func (p PubSub) answer(m *message) (frame, error) {
	value, err := jsvalue.Normalize(m.value)
	if err != nil {
		return frame{}, err
	}
	id, encode := property{"requestId", m.id}, jsvalue.AppendJSON
	specific := p.SpecificResponses && m.asker != ""
	var answer object
	switch m.kind {
	case socketList:
		var sockets []any
		if sockets, err = socketObjects(m.sockets); err != nil {
			return frame{}, err
		}
		answer = object{id, {"sockets", sockets}}
	case socketIDList:
		answer = object{id, {"sockets", idList(m.sockets)}}
	case roomList:
		answer = object{id, {"rooms", list(m.rooms)}}
	case done:
		answer = object{id}
	case serverSideAnswer:
		specific = false // the nodes don't do it either
		answer = object{{"type", int64(typeServerSide)}, id, {"data", value}}
	case clientCount:
		answer = object{{"type", int64(typeClientCount)}, id, {"clientCount", int64(m.count)}}
	case ack:
		encode = jsvalue.Timestamps.AppendMsgpack
		answer = object{{"type", int64(typeAck)}, id, {"packet", value}}
	default:
		return frame{}, unsupported("@socket.io/redis-adapter", m.kind.String())
	}
	channel := p.classic().responseChannel(m.nsp)
	if specific {
		channel += m.asker + "#"
	}
	return frame{channel: channel, data: encode(nil, answer)}, nil
}

func (p PubSub) decode(nsp, channel string, data []byte) (*message, error) {
	v, err := jsvalue.Parse(data)
	if err != nil {
		return nil, err
	}
	o, _ := v.(map[string]any)
	f := fields(o)
	m := &message{nsp: nsp, uid: f.text("uid"), id: f.text("requestId")}
	switch {
	case channel == p.classic().requestChannel(nsp):
		return m, p.readRequest(m, f)
	case strings.HasPrefix(channel, p.classic().responseChannel(nsp)):
		p.readAnswer(m, f)
		return m, nil
	}
	return readBroadcast(nsp, v)
}

func (p PubSub) readRequest(m *message, f fields) (err error) {
	if m.kind = f.kind(pubSubTypes[:]); m.kind == 0 || m.kind.answers() {
		return fmt.Errorf("a request of type %v", f["type"])
	}
	m.target = f.object("opts").target()
	switch m.kind {
	case socketIDs:
		m.to = f.names("rooms")
	case join, leave, disconnect:
		m.rooms, m.close = f.names("rooms"), get[bool](f, "close")
		if sid, ok := jsvalue.PropertyName(f["sid"]); ok { // of nodes with a version before 7.0
			m.to, m.rooms = []string{sid}, nil
			if room, ok := jsvalue.PropertyName(f["room"]); ok {
				m.rooms = []string{room}
			}
		}
	case serverSideEmit:
		m.event = get[[]any](f, "data")
	case broadcast:
		m.event, err = readPacket(f.object("packet"))
	}
	return err
}

func (p PubSub) readAnswer(m *message, f fields) {
	sockets, isSockets := f["sockets"].([]any)
	_, isRooms := f["rooms"].([]any)
	switch t, _ := f["type"].(float64); {
	case t == typeServerSide:
		m.kind, m.value = serverSideAnswer, f["data"]
	case t == typeClientCount:
		m.kind, m.count = clientCount, f.integer("clientCount")
	case t == typeAck:
		m.kind, m.value = ack, f["packet"]
	case isSockets:
		m.kind, m.sockets = socketList, readSockets(sockets)
	case isRooms:
		m.kind, m.rooms = roomList, f.names("rooms")
	default:
		m.kind = done
	}
}
