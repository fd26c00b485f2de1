package handover

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The versions of the protocol that this build speaks. What a version means never changes: a
// build that needs another message, or another meaning of a record, adds a version. hello,
// welcome and abort are the same in all of them.
const (
	minVersion = 1
	maxVersion = 1
)

// magic begins each hello, so that a connection of anybody else is told apart.
const magic = "limpet takeover\n"

// A kind says what a message is.
type kind byte

const (
	hello kind = iota + 1
	welcome
	ready
	state
	offer
	accept
	batch
	ack
	received
	commit
	taken
	abort
)

// String returns the name of k in the documentation of the package.
func (k kind) String() string {
	names := [...]string{"nothing", "hello", "welcome", "ready", "state", "offer", "accept", "batch", "ack", "received", "commit", "taken", "abort"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("message %d", byte(k))
}

const (
	// maxFiles is how many descriptors one message can have: SCM_MAX_FD of Linux.
	maxFiles = 253
	// maxBatch is how many bytes the records of a batch have, unless one alone has more. A
	// message of this size, and an abort behind it, have room in the buffer of a socket
	// whose other end isn't read.
	maxBatch = 128 << 10
	// maxPayload bounds what a message may have, so that a connection of somebody else can't
	// make a process allocate at will.
	maxPayload = 64 << 20
	// headerSize is that of a message's header: its kind, the number of its descriptors, and
	// the size of its payload.
	headerSize = 1 + 2 + 4
)

// A message is one of those in the documentation of the package.
type message struct {
	kind    kind
	payload []byte
	files   []int // descriptors, which whoever has the message closes
}

// header returns the header of m.
func (m message) header() []byte {
	b := append(make([]byte, 0, headerSize+len(m.payload)), byte(m.kind))
	b = binary.BigEndian.AppendUint16(b, uint16(len(m.files)))
	return binary.BigEndian.AppendUint32(b, uint32(len(m.payload)))
}

// parseHeader returns what a header says.
func parseHeader(b []byte) (k kind, files, size int, err error) {
	k, files, size = kind(b[0]), int(binary.BigEndian.Uint16(b[1:])), int(binary.BigEndian.Uint32(b[3:]))
	if k < hello || k > abort || files > maxFiles || size > maxPayload {
		return 0, 0, 0, errForeign
	}
	return k, files, size, nil
}

// An Item is what goes over as one: open files, and what is known of them.
type Item struct {
	Record []byte
	Files  []int // descriptors
}

// items appends what a batch holds to all. Each item is the length of its record, the number
// of its descriptors, and the record.
func (m message) items(all []Item) ([]Item, error) {
	b, files := m.payload, m.files
	for len(b) > 0 {
		if len(b) < 5 {
			return all, errShort
		}
		size, n := int(binary.BigEndian.Uint32(b)), int(b[4])
		b = b[5:]
		if size > len(b) || n > len(files) {
			return all, errShort
		}
		all = append(all, Item{Record: b[:size:size], Files: files[:n:n]})
		b, files = b[size:], files[n:]
	}
	if len(files) > 0 {
		return all, errShort
	}
	return all, nil
}

var (
	errForeign = errors.New("what came isn't of this protocol")
	errShort   = errors.New("a message isn't what it says it is")
)

// batches cuts items into messages.
func batches(items []Item) (all []message) {
	m := message{kind: batch}
	for _, it := range items {
		if len(m.payload) > 0 && (len(m.payload)+5+len(it.Record) > maxBatch || len(m.files)+len(it.Files) > maxFiles) {
			all = append(all, m)
			m = message{kind: batch}
		}
		m.payload = binary.BigEndian.AppendUint32(m.payload, uint32(len(it.Record)))
		m.payload = append(m.payload, byte(len(it.Files)))
		m.payload = append(m.payload, it.Record...)
		m.files = append(m.files, it.Files...)
	}
	if len(m.payload) > 0 {
		all = append(all, m)
	}
	return all
}
