package bus

import (
	"bytes"
	"strings"
)

// A ring is what the channel of a stream says of a new entry:
//
//	ID                      it must be read
//	ID BEFORE MARK LF DATA  it is here; BEFORE is the ID of the entry before it, or 0-0
//
// All databases of a Redis share the channels, and one may have a stream of the same name. So
// in a database other than 0, BEFORE begins with its number and a colon: an entry of another
// database must be read, and isn't found.
//
// A subscriber that has all entries up to BEFORE doesn't have to read anything. MARK is
// described at [mark].
type ring struct {
	entry  entry // without a mark and data if it must be read
	before streamID
	whole  bool // all of the entry is here
}

// parseRing parses a ring of a database, as [Streams.database] names it. One that makes no sense has the ID 0-0, which is older than
// everything.
func parseRing(data []byte, database string) ring {
	head, body, whole := bytes.Cut(data, []byte("\n"))
	text, rest, _ := strings.Cut(string(head), " ")
	id, err := parseStreamID(text)
	if err != nil {
		return ring{}
	}
	b := ring{entry: entry{id: id, text: text}}
	before, marked, _ := strings.Cut(rest, " ")
	before, here := strings.CutPrefix(before, database)
	m, err := parseMark(marked)
	if err != nil || !whole || !here {
		return b
	}
	if b.before, err = parseStreamID(before); err == nil {
		b.entry.mark, b.entry.data, b.whole = &m, body, true
	}
	return b
}

// follows reports whether an entry that has rung is the one behind a position, so that
// nothing has to be read.
func (b ring) follows(p position) bool { return b.whole && b.before == p.id }

// Of the entries of a stream that ring while it is read so many are kept, and so many bytes of
// their data: they mostly are the ones behind those that were read.
const maxRings, maxRingBytes = 256, 256 << 10

// keep keeps an entry that has rung until the stream is read. r.mu is held.
func (st *stream) keep(b ring) {
	if len(st.rings) == maxRings || st.ringBytes+len(b.entry.data) > maxRingBytes {
		st.drop() // they must be read
	}
	st.rings = append(st.rings, b)
	st.ringBytes += len(b.entry.data)
}

// drop forgets the entries that have rung. r.mu is held.
func (st *stream) drop() { st.rings, st.ringBytes = nil, 0 }

// replay passes on the entries that have rung while the stream was read, as far as nothing
// is missing between them. r.mu is held.
func (r *reader) replay(st *stream) {
	rings := st.rings
	st.drop()
	for _, b := range rings {
		if b.entry.id.compare(st.at.id) <= 0 {
			continue
		}
		if !b.follows(st.at) {
			return
		}
		r.pass(st, page{from: st.at, at: st.at, entries: []entry{b.entry}})
	}
}
