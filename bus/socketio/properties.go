package socketio

import (
	"fmt"

	"github.com/limpet-go/limpet/bus/socketio/internal/jsvalue"
)

type (
	object   = jsvalue.Object
	property = jsvalue.Property
)

// opts returns the object that target reads. Only a broadcast needs the flags.
func (t *target) opts(withFlags bool) object {
	o := object{{"rooms", list(t.to)}, {"except", list(t.except)}}
	if !withFlags {
		return o
	}
	flags := object{}
	if t.uncompressed {
		flags = append(flags, property{"compress", false})
	}
	if t.volatile {
		flags = append(flags, property{"volatile", true})
	}
	if t.timeout > 0 {
		flags = append(flags, property{"timeout", t.timeout})
	}
	return append(o, property{"flags", flags})
}

// list returns names as a JavaScript array.
func list(names []string) []any {
	l := make([]any, len(names))
	for i, s := range names {
		l[i] = jsvalue.Valid(s)
	}
	return l
}

// object returns the description of a socket that nodes send each other.
func (s *Socket) object() (object, error) {
	handshake, err := jsvalue.Normalize(s.Handshake)
	if err != nil {
		return nil, err
	}
	if handshake == nil {
		handshake = object{}
	}
	data, err := jsvalue.Normalize(s.Data)
	if err != nil {
		return nil, err
	}
	return object{{"id", s.ID}, {"handshake", handshake}, {"rooms", list(s.Rooms)}, {"data", data}}, nil
}

// socketObjects returns the descriptions of sockets.
func socketObjects(sockets []Socket) ([]any, error) {
	l := make([]any, len(sockets))
	for i := range sockets {
		o, err := sockets[i].object()
		if err != nil {
			return nil, fmt.Errorf("socket %s: %w", sockets[i].ID, err)
		}
		l[i] = o
	}
	return l, nil
}

// idList returns the IDs of sockets.
func idList(sockets []Socket) []any {
	l := make([]any, len(sockets))
	for i := range sockets {
		l[i] = jsvalue.Valid(sockets[i].ID)
	}
	return l
}
