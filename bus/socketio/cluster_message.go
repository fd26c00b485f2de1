package socketio

import (
	"fmt"

	"github.com/limpet-go/limpet/bus/socketio/internal/jsvalue"
)

// Sharded and Streams have in common the messages and answers of socket.io-adapter's
// ClusterAdapter: {type, data, uid, nsp}.

// clusterRequest fetches sockets to learn rooms, since there is no request for
// rooms.
func clusterRequest(m *message) *message {
	switch m.kind {
	case allRooms, roomsOf:
		return m.asFetch()
	}
	return m
}

// clusterData returns the property data of a message, nil if its kind has none.
func clusterData(m *message) (any, error) {
	id := property{"requestId", m.id}
	value, err := jsvalue.Normalize(m.value)
	if err != nil {
		return nil, err
	}
	switch m.kind {
	case initialHeartbeat, heartbeat, adapterClose:
		return nil, nil
	case broadcast:
		event, err := jsvalue.Normalize(m.event)
		if err != nil {
			return nil, err
		}
		data := object{{"packet", object{{"type", int64(eventPacket)}, {"data", event}}}}
		if m.id != "" {
			data = append(data, id)
		}
		return append(data, property{"opts", m.opts(true)}), nil
	case join, leave:
		return object{{"opts", m.opts(true)}, {"rooms", list(m.rooms)}}, nil
	case disconnect:
		return object{{"opts", m.opts(true)}, {"close", m.close}}, nil
	case fetchSockets:
		return object{{"opts", m.opts(true)}, id}, nil
	case socketList:
		sockets, err := socketObjects(m.sockets)
		return object{id, {"sockets", sockets}}, err
	case serverSideEmit:
		event, err := jsvalue.Normalize(m.event)
		if m.id != "" {
			return object{id, {"packet", event}}, err
		}
		return object{{"packet", event}}, err
	case clientCount:
		return object{id, {"clientCount", int64(m.count)}}, nil
	case serverSideAnswer, ack:
		return object{id, {"packet", value}}, nil
	}
	return nil, unsupported("a cluster adapter", m.kind.String())
}

// mayHoldBinary tells whether both npm packages search a message of this kind for
// binary data.
func (k kind) mayHoldBinary() bool {
	switch k {
	case broadcast, ack, socketList, serverSideEmit, serverSideAnswer:
		return true
	}
	return false
}

// clusterMessage returns a message with its data.
func clusterMessage(m *message, data any) object {
	o := object{{"type", int64(m.kind)}}
	if data != nil {
		o = append(o, property{"data", data})
	}
	return append(o, property{"uid", m.uid}, property{"nsp", m.nsp})
}

// readClusterMessage reads a message with its data.
func readClusterMessage(nsp string, v any) (*message, error) {
	o, _ := v.(map[string]any)
	f := fields(o)
	if f.text("nsp") != nsp {
		return nil, fmt.Errorf("a message to the namespace %v", f["nsp"])
	}
	m := &message{kind: kind(f.integer("type")), nsp: nsp, uid: f.text("uid")}
	return m, readClusterData(m, f.object("data"))
}

// readClusterData reads the property data into a message whose kind is known.
func readClusterData(m *message, data fields) (err error) {
	m.id = data.text("requestId")
	m.target = data.object("opts").target()
	switch m.kind {
	case initialHeartbeat, heartbeat, adapterClose, fetchSockets:
	case broadcast:
		m.event, err = readPacket(data.object("packet"))
	case join, leave:
		m.rooms = data.names("rooms")
	case disconnect:
		m.close = get[bool](data, "close")
	case socketList:
		m.sockets = readSockets(get[[]any](data, "sockets"))
	case serverSideEmit:
		if m.event = get[[]any](data, "packet"); len(m.event) == 0 {
			err = fmt.Errorf("a serverSideEmit without an event")
		}
	case clientCount:
		m.count = data.integer("clientCount")
	case serverSideAnswer, ack:
		m.value = data["packet"]
	default:
		err = fmt.Errorf("a message of type %d", m.kind)
	}
	return err
}
