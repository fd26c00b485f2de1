package hub

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// envelope is what nodes of a hub send to each other:
//
//	version  1 byte, 1
//	kind     1 byte
//	node     string: the ID of the sender
//	to       list of strings: keys of rooms and IDs
//	except   list of strings
//	payload  the rest: the message as it is, or what the kind needs, mostly JSON
//
// A string is its length and its bytes, a list its length and its strings;
// lengths are unsigned varints (encoding/binary). What is to several keys is
// published on each of their topics, as the same bytes.
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
	kindAsk                   // to all nodes: who of those in to is with you; a question
	kindAnswer                // to the node that has asked; a part of the answer
	kindAlive                 // to all nodes
	kindHello                 // to all nodes: who is there
	kindBye                   // to all nodes
)

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

// parseEnvelope is the inverse of append. The payload is not copied.
func parseEnvelope(b []byte) (e envelope, err error) {
	if len(b) < 2 || b[0] != envelopeVersion {
		return e, errors.New("not of version 1")
	}
	e.kind = b[1]
	if e.kind < kindText || e.kind > kindBye {
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

// input is what is left to parse.
type input struct {
	b     []byte
	short bool
}

// length reads the length of what takes a byte at least for each.
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
