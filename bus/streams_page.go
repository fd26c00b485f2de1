package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// A streamID is the ID of an entry of a stream: the time when it was added, in Unix
// milliseconds, and a number among those of the same millisecond.
type streamID struct{ ms, n uint64 }

func (id streamID) String() string {
	return strconv.FormatUint(id.ms, 10) + "-" + strconv.FormatUint(id.n, 10)
}

func (id streamID) compare(other streamID) int {
	return cmp.Or(cmp.Compare(id.ms, other.ms), cmp.Compare(id.n, other.n))
}

func parseStreamID(s string) (id streamID, err error) {
	ms, n, ok := strings.Cut(s, "-")
	if !ok {
		n = "0"
	}
	if id.ms, err = strconv.ParseUint(ms, 10, 64); err == nil {
		id.n, err = strconv.ParseUint(n, 10, 64)
	}
	if err != nil {
		return streamID{}, fmt.Errorf("bus: message ID %q: %w", s, err)
	}
	return id, nil
}

// A position is a point in a stream: behind all entries up to an ID.
type position struct {
	id streamID
	// entry says that there was an entry with this ID. As long as there is, nothing
	// behind it was trimmed: Redis trims the oldest entries first.
	entry bool
	// added is the number of entries that were ever added up to here, or -1 if that
	// isn't known.
	added int64
}

// An entry is an entry of a stream, which mostly is a message.
type entry struct {
	id   streamID
	text string // the ID as Redis has written it
	mark *mark  // nil if it was added by other means than Publish
	data []byte // nil if it isn't a message
}

// A page is the result of one read: the entries behind a position, or an error.
type page struct {
	from    position // where it was read from
	at      position // where its entries begin: from, or behind the gap
	gap     *Gap     // what is missing between from and the entries, or nil
	entries []entry
	more    bool // there are entries behind these
	err     error
}

// next returns the position behind e, which must be the next entry behind p.
func (p position) next(e entry) position {
	if p.added >= 0 {
		p.added++
	}
	return position{id: e.id, entry: true, added: p.added}
}

// A request asks for what is behind a position.
type request struct {
	key  string
	from position
}

var (
	errTrimmed = errors.New("the history was trimmed before it was read")
	errLost    = errors.New("Redis has lost a part of the history")
)

// readPages reads a page for each request. It takes one round trip to Redis, and another
// one if a stream was trimmed behind the position from which it is read.
func readPages(ctx context.Context, client redis.UniversalClient, reqs []request, count int) []page {
	pages := make([]page, len(reqs))
	var doubtful []int
	ranges, infos := ask(ctx, client, reqs, count, func(p position) bool { return !p.entry })
	for i, req := range reqs {
		pages[i] = turn(req.from, ranges[i], infos[i], count)
		if errors.Is(pages[i].err, errDoubtful) {
			doubtful = append(doubtful, i)
		}
	}
	if len(doubtful) == 0 {
		return pages
	}
	again := make([]request, len(doubtful))
	for i, at := range doubtful {
		again[i] = reqs[at]
	}
	ranges, infos = ask(ctx, client, again, count, func(position) bool { return true })
	for i, at := range doubtful {
		pages[at] = turn(reqs[at].from, ranges[i], infos[i], count)
	}
	return pages
}

// ask asks Redis for the entries of each stream from a position on. The entry at the
// position itself is asked for as well: if it is there, nothing behind it is missing. For
// the positions for which about returns true it also asks what Redis knows of the stream,
// which tells what is missing if that entry isn't there.
func ask(ctx context.Context, client redis.UniversalClient, reqs []request, count int, about func(position) bool) ([]*redis.Cmd, []*redis.XInfoStreamCmd) {
	ranges, infos := make([]*redis.Cmd, len(reqs)), make([]*redis.XInfoStreamCmd, len(reqs))
	pipe := client.Pipeline()
	for i, req := range reqs {
		if about(req.from) {
			infos[i] = pipe.XInfoStream(ctx, req.key)
		}
		// Not XRange of go-redis, which makes a map of each entry.
		ranges[i] = pipe.Do(ctx, "xrange", req.key, req.from.id.String(), "+", "count", count+1)
	}
	pipe.Exec(ctx) // its error is the first one of the commands, which are looked at
	return ranges, infos
}

// errDoubtful says that messages may be missing between the position and the page, and
// that it isn't known how many.
var errDoubtful = errors.New("the stream was trimmed while it was read")

// turn makes a page of the answers of Redis. info is nil if it wasn't asked for.
func turn(from position, ranged *redis.Cmd, info *redis.XInfoStreamCmd, count int) page {
	p := page{from: from, at: from}
	raw, err := ranged.Slice()
	if err != nil {
		p.err = err
		return p
	}
	for _, v := range raw {
		e, err := parseEntry(v)
		if err != nil {
			p.err = err
			return p
		}
		p.entries = append(p.entries, e)
	}
	p.more = len(p.entries) > count
	if len(p.entries) > 0 && p.entries[0].id == from.id {
		p.entries = p.entries[1:]
		p.at.entry = true
		return p
	}
	if info == nil {
		p.err = errDoubtful
		return p
	}
	about, err := aboutStream(info)
	if err != nil {
		p.err = err
		return p
	}
	p.compare(about)
	return p
}

// about is what Redis knows of a stream.
type about struct {
	added, trimmed int64    // the numbers of entries that were ever added, and trimmed
	first          streamID // of the oldest entry that is there
	last           streamID // of the newest entry that ever was there
	entry          bool     // the newest entry is there
}

// aboutStream takes the answer to XINFO STREAM. A stream that doesn't exist is empty.
func aboutStream(cmd *redis.XInfoStreamCmd) (about, error) {
	info, err := cmd.Result()
	if err != nil {
		var answer redis.Error
		if errors.As(err, &answer) && strings.Contains(err.Error(), "no such key") {
			err = nil
		}
		return about{}, err
	}
	if info.EntriesAdded < info.Length {
		return about{}, errors.New("Streams needs Redis 7")
	}
	a := about{added: info.EntriesAdded, trimmed: info.EntriesAdded - info.Length}
	if a.last, err = parseStreamID(info.LastGeneratedID); err == nil && info.Length > 0 {
		a.entry = info.LastEntry.ID == info.LastGeneratedID
		a.first, err = parseStreamID(info.FirstEntry.ID)
	}
	return a, err
}

// end returns the position behind all entries.
func (a about) end() position { return position{id: a.last, entry: a.entry, added: a.added} }

// compare finds out what is missing between the position that was read from, whose entry
// isn't there, and the first entry of the page:
//
//	the newest ID is older, or fewer entries were added  Redis has lost data
//	it isn't known how many were added up to from        some may have been trimmed
//	more were trimmed than were added up to from         the difference was trimmed
//	fewer were trimmed, but the entry is gone            Redis has lost data
//	otherwise                                            nothing is missing
func (p *page) compare(a about) {
	allBehind := a.first.compare(p.from.id) > 0
	if allBehind && (len(p.entries) == 0 || p.entries[0].id != a.first) {
		p.err = errDoubtful // trimmed between the two answers
		return
	}
	switch {
	case a.last.compare(p.from.id) < 0 || a.added < p.from.added:
		// Entries that are there and older were seen before.
		p.gap = &Gap{Lost: -1, Err: errLost}
		p.at.added = -1
	case p.from.added < 0:
		p.gap = &Gap{Lost: -1, Err: errTrimmed}
	case a.trimmed > p.from.added:
		p.gap = &Gap{Lost: a.trimmed - p.from.added, Err: errTrimmed}
	case p.from.entry && a.trimmed < p.from.added:
		// The entry is gone, although no later one was trimmed.
		p.gap = &Gap{Lost: -1, Err: errLost}
		p.at.added = -1
	}
	switch {
	case allBehind:
		p.at.added = a.trimmed
	case p.gap != nil && len(p.entries) == 0:
		p.at = a.end()
	}
}

// parseEntry parses what XRANGE returns for an entry.
func parseEntry(v any) (entry, error) {
	pair, _ := v.([]any)
	if len(pair) != 2 {
		return entry{}, fmt.Errorf("bus: Redis returned %T for an entry", v)
	}
	text, _ := pair[0].(string)
	id, err := parseStreamID(text)
	e := entry{id: id, text: text}
	fields, _ := pair[1].([]any)
	for i := 0; i+1 < len(fields); i += 2 {
		value, _ := fields[i+1].(string)
		switch fields[i] {
		case "m":
			if m, err := parseMark(value); err == nil {
				e.mark = &m
			}
		case "d":
			e.data = append([]byte{}, value...)
		}
	}
	return e, err
}
