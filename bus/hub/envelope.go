package hub

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// envelope is one message between the nodes of a hub:
//
//	version  1 byte, 1
//	kind     1 byte
//	node     string: the ID of the sender
//	to       list of strings: the keys of rooms and IDs that it is for
//	except   list of strings: the keys of those that it is not for; the last one may be
//	         that of cutOnce
//	payload  the rest: the message as it is, or what the kind needs, mostly JSON
//	         (kindAlive and kindHello: unsigned varints, the fields of a condition)
//
// A string is its length and its bytes, a list its length and its strings. Lengths
// are unsigned varints (encoding/binary). An envelope for several keys is published on
// the topic of each, with the same bytes.
type envelope struct {
	kind    byte
	node    string
	to      []string
	except  []string
	payload []byte
}

const envelopeVersion = 1

const (
	kindText       = 1 + iota // to members
	kindBinary                // to members
	kindJoin                  // to members, a list of rooms
	kindLeave                 // to members, a list of rooms
	kindDisconnect            // to members, a farewell
	kindAsk                   // to all nodes: list your members that are in to
	kindAnswer                // to the node that has asked: a part of the list
	kindAlive                 // to all nodes, or to one that has greeted: this node is there, for some milliseconds
	kindHello                 // to all nodes: this node is there, for some milliseconds, answer it with kindAlive
	kindBye                   // to all nodes: this node leaves
	kindSilent                // to all nodes, a list of nodes: forget these unless they are heard
	kindNews                  // to all nodes with Presence, or to one that has asked: members of this node
	kindAskList               // to a node with Presence: list your members
	kindCall                  // to all nodes, or to one: a call
	kindReply                 // to the node that has called: the reply, as a call
	kindQuestion              // to all nodes: ask your members that are in to, a call whose outcome is the kind of the message
)

// frame returns the message in an envelope that has one.
func (e *envelope) frame() *Frame { return &Frame{payload: e.payload, binary: e.kind == kindBinary} }

// append appends the envelope to b.
func (e *envelope) append(b []byte) []byte {
	b = append(b, envelopeVersion, e.kind)
	b = appendString(b, e.node)
	b = appendStrings(b, e.to)
	b = appendStrings(b, e.except)
	return append(b, e.payload...)
}

func appendStrings(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

var errShort = errors.New("cut short")

// parseEnvelope is the inverse of append. The payload is a part of b and not a copy.
func parseEnvelope(b []byte) (e envelope, err error) {
	if len(b) < 2 || b[0] != envelopeVersion {
		return e, errors.New("not of version 1")
	}
	e.kind = b[1]
	if e.kind < kindText || e.kind > kindQuestion {
		return e, fmt.Errorf("of unknown kind %d", e.kind)
	}
	in := input{b: b[2:]}
	e.node = in.string()
	e.to = in.strings()
	e.except = in.strings()
	e.payload = in.b
	if in.short || e.node == "" {
		return envelope{}, errShort
	}
	return e, nil
}

// input reads strings and lists from bytes.
type input struct {
	b     []byte // what is left to read
	short bool   // more was to be read than there is
}

// length reads a length of what takes at least one byte for each of its parts: one
// that is greater than what is left can't be true, and no memory is taken for it.
func (in *input) length() int {
	n, size := binary.Uvarint(in.b)
	if in.short = in.short || size <= 0 || n > uint64(len(in.b)-size); in.short {
		return 0
	}
	in.b = in.b[size:]
	return int(n)
}

func (in *input) string() string {
	n := in.length()
	s := string(in.b[:n])
	in.b = in.b[n:]
	return s
}

func (in *input) strings() []string {
	n := in.length()
	if n == 0 {
		return nil
	}
	list := make([]string, 0, min(n, 16))
	for range n {
		if list = append(list, in.string()); in.short {
			return nil
		}
	}
	return list
}
