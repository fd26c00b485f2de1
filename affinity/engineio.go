package affinity

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// EngineIO is an [Affinity] by the session ID of Engine.IO, the protocol below
// Socket.IO: it pins clients that keep no cookies, such as native applications
// and pages of another site.
//
// A session that polls exists at one node only, and its client names it in the
// query parameter sid of all its requests but the first. The node that answers
// the first one has the session: its answer is either changed, so that the sid
// says where it is from, or remembered. That first request itself has no home:
// whoever picks the backend decides, or the other members of a [Chain], in which
// an EngineIO comes first. A session that begins with a WebSocket needs no pin
// and is left alone.
//
// The pins are Fixed. When the node is gone, the client is told so in Engine.IO's
// own words, and opens a new session. Their Key is a hash of the node's sid, as
// the sid itself opens the session to whoever has it.
//
// Any number of replicas can serve one session if they have the same Secrets, for
// [SIDModeTag], or the same Store, for [SIDModeLearn]. The zero value is ready for one
// process. An EngineIO must not be copied after its first use.
type EngineIO struct {
	// Path is the path under which Engine.IO is served, as "/socket.io/".
	// Requests whose path doesn't begin with it are none of this affinity's
	// business, nor are those without the parameter EIO, unless their sid has a
	// genuine tag. Empty: all paths.
	Path string

	// Mode tells how a sid is tied to its backend.
	Mode SIDMode

	// Secrets seal the tags of SIDModeTag, each of at least 32 random bytes. They
	// may be those of a [Cookie]. The first one seals, all of them open. To rotate,
	// add the new secret as the second one on all replicas, then move it to the
	// front on all, and take the old one out when its sessions have ended.
	//
	// Without secrets a random one is made for this EngineIO, and a warning logged:
	// other replicas, and this one after a restart, don't know its sids. With
	// SIDModeLearn none are needed.
	Secrets [][]byte

	// Store keeps the pins of SIDModeLearn. Nil means an [LRU] of its own, which no
	// other replica knows. Lifetimes are the store's.
	Store Store

	// Name sets the pins in Store apart from those of others. It goes before the
	// sid, with a ':' between. Empty means "eio".
	Name string

	// Logger is for the warning about missing Secrets. Nil means slog.Default().
	Logger *slog.Logger

	once   sync.Once
	tagger tagger
	table  Table // its store and keys
	err    error // what Validate returns
}

// SIDMode is a way to tie an Engine.IO session ID to a backend.
type SIDMode int

const (
	// SIDModeByVersion is SIDModeTag for version 4 of the protocol, of Socket.IO 3 and 4,
	// and SIDModeLearn for the versions before, where socket.id is the sid and
	// applications pass it on.
	SIDModeByVersion SIDMode = iota

	// SIDModeTag extends the sid on its way to the client by a tag, and takes it off
	// again before a backend sees it. A tag holds the backend's ID, encrypted,
	// and a MAC of 80 bits over both. With the dot before it, it has 25
	// characters of the URL-safe alphabet for an ID of up to 8 bytes, and 11
	// more for each 8 beyond, 100 for the longest ID of 64.
	//
	// Nothing is stored, and any replica with the same Secrets can serve the
	// session. A client of version 3 must not tell anybody its socket.id.
	SIDModeTag

	// SIDModeLearn leaves the sid as it is and remembers it in the Store.
	SIDModeLearn
)

// maxSID bounds a sid. Engine.IO's own have 20 characters, but an application
// can make its own. Longer ones are neither tagged nor looked up.
const maxSID = 1024

// A sidNote is what Find tells Rewrite, Bind and Gone of an Engine.IO request.
type sidNote struct {
	engineQuery
	mode  SIDMode // SIDModeTag or SIDModeLearn
	opens bool    // the request opens a session that polls
	plain string  // the sid as the backend knows it, if the client's has a tag
}

// Find reads where the session is from its sid, or looks it up. Status is None
// for what isn't an Engine.IO request of a session, Unknown for a sid that has
// no tag or isn't in the store, and Forged for one whose tag isn't genuine.
func (e *EngineIO) Find(r *http.Request) (Pin, error) {
	if !strings.HasPrefix(r.URL.Path, e.Path) {
		return Pin{}, nil
	}
	q := parseEngineQuery(r.URL.RawQuery)
	tooLong := len(q.sid) > maxSID+maxTag
	if q.version == "" && (q.sid == "" || tooLong || e.Mode == SIDModeLearn) {
		return Pin{}, nil
	}
	if err := e.Validate(); err != nil {
		return Pin{}, err
	}
	note := &sidNote{engineQuery: q, mode: e.Mode}
	if note.mode == SIDModeByVersion {
		note.mode = SIDModeLearn
		if q.version == "4" { // as Engine.IO itself decides
			note.mode = SIDModeTag
		}
	}
	pin := Pin{Note: note}
	switch {
	case q.version == "":
		// Any application may have a sid: only a genuine tag says whose this is.
		if pin = e.openTag(note); pin.Status != Hit {
			pin = Pin{}
		}
		return pin, nil
	case q.sid == "":
		note.opens = r.Method == http.MethodGet && q.transport == "polling"
		return pin, nil
	case tooLong:
		pin.Status = Unknown
		return pin, nil
	case note.mode == SIDModeLearn:
		key := secretKey(q.sid)
		home, err := e.table.store().Load(r.Context(), e.table.storeKey(key))
		if err != nil {
			err = fmt.Errorf("affinity: Engine.IO: load the pin of a session: %w", err)
		}
		pin.Status = Unknown
		if home != "" {
			pin = Pin{Backend: home, Key: key, Status: Hit, Fixed: true, Note: note}
		}
		return pin, err
	}
	return e.openTag(note), nil
}

// openTag returns the pin of a session whose sid may have a tag.
func (e *EngineIO) openTag(note *sidNote) Pin {
	plain, home, status := e.tagger.open(note.sid)
	if status != Hit {
		return Pin{Status: status, Note: note}
	}
	note.plain = plain
	return Pin{Backend: home, Key: secretKey(plain), Status: Hit, Fixed: true, Note: note}
}

// Rewrite restores the sid for the backend. A request that opens a session is
// sent on without Accept-Encoding, as its answer has to be read.
func (e *EngineIO) Rewrite(out *http.Request, found Pin) {
	note, ok := found.Note.(*sidNote)
	switch {
	case !ok:
	case note.opens:
		delete(out.Header, "Accept-Encoding")
	case note.plain != "":
		out.URL.RawQuery = replaceSID(out.URL.RawQuery, note.sid, note.plain)
	}
}

// Bind looks for the sid in the answer to a request that opens a session, and
// tags or remembers it; the answer is held back until the sid is there. What
// isn't the beginning of a session passes as it is.
//
// If another backend stood in for a.Home, the session is bound to that one.
//
// If the backend answers that it doesn't know the session of the request, which
// is Engine.IO's status 400 with code 1, Bind calls a.UnknownSession.
func (e *EngineIO) Bind(a Answer) (key string, err error) {
	note, ok := a.Found.Note.(*sidNote)
	if !ok {
		return a.Found.Key, nil
	}
	status := a.Response.StatusCode
	switch {
	case note.opens && status == http.StatusOK && a.Home != "":
		return e.bindSession(a, note.mode)
	case note.sid != "" && status == http.StatusBadRequest && a.UnknownSession != nil && saysUnknown(a.Response):
		a.UnknownSession(a.Found)
	}
	return a.Found.Key, nil
}

// bindSession binds the session that a opens, if it does.
func (e *EngineIO) bindSession(a Answer, mode SIDMode) (key string, err error) {
	res, home := a.Response, a.answeredBy()
	if enc := res.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		return "", fmt.Errorf("affinity: Engine.IO: backend %q opened a session in the encoding %.20q, which nobody asked for: it can't be pinned", home, enc)
	}
	body, o := peekOpening(res)
	if o == nil || len(o.sid) > maxSID {
		return "", nil
	}
	key = secretKey(o.sid)
	if mode == SIDModeTag {
		tag, err := e.tagger.tag(o.sid, home)
		if err != nil {
			return "", fmt.Errorf("affinity: Engine.IO: session of backend %q: %w", home, err)
		}
		body.head = o.extend(body.head, tag)
		added := int64(len(body.head) - o.read)
		if res.ContentLength >= 0 {
			res.ContentLength += added
		}
		if n, err := strconv.ParseInt(res.Header.Get("Content-Length"), 10, 64); err == nil {
			res.Header.Set("Content-Length", strconv.FormatInt(n+added, 10))
		}
		return key, nil
	}
	store, id := e.table.store(), e.table.storeKey(key)
	now, err := store.Swap(a.Request.Context(), id, "", home)
	if err == nil && now != home {
		// An application that makes its own sids may make one again.
		_, err = store.Swap(a.Request.Context(), id, now, home)
	}
	if err != nil {
		err = fmt.Errorf("affinity: Engine.IO: store the pin of a session to backend %q: %w", home, err)
	}
	return key, err
}

// unknownSession is the message of Engine.IO's error code 1.
const unknownSession = "Session ID unknown"

// Gone answers that the session is unknown, as engine.io does: as JSON to a
// request that polls, as text to a WebSocket's. A client on a page of another
// site may read it, as it could the node's: the answer has nothing in it that
// the client didn't know. A CORS preflight is left to some other backend.
func (e *EngineIO) Gone(r *http.Request, found Pin) *http.Response {
	note, ok := found.Note.(*sidNote)
	if !ok || r.Method == http.MethodOptions {
		return nil
	}
	h := http.Header{}
	text := `{"code":1,"message":"` + unknownSession + `"}`
	if note.transport == "websocket" {
		text = unknownSession
		h.Set("Content-Type", "text/html")
	} else {
		h.Set("Content-Type", "application/json")
		// Version 3 does the rest itself; since version 4 it is left to the
		// package cors, and to whether an application uses that.
		if origin := r.Header.Get("Origin"); origin != "" {
			h.Set("Access-Control-Allow-Credentials", "true")
			h.Set("Access-Control-Allow-Origin", origin)
		} else if note.version != "4" {
			h.Set("Access-Control-Allow-Origin", "*")
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(text)))
	return &http.Response{
		Status: "400 Bad Request", StatusCode: http.StatusBadRequest,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, ContentLength: int64(len(text)), Body: io.NopCloser(strings.NewReader(text)), Request: r,
	}
}

// Validate tells what is wrong with the fields: secrets that are too short, a Path
// that isn't one, a Name with a ':', a Mode that doesn't exist. As long as it
// returns an error, so does Find, and no client is pinned.
func (e *EngineIO) Validate() error {
	e.once.Do(e.init)
	return e.err
}

// init settles what doesn't change from one request to the next.
func (e *EngineIO) init() {
	e.table = Table{Store: e.Store, Name: e.Name}
	if e.Name == "" {
		e.table.Name = "eio"
	}
	err := e.table.Validate()
	if e.Mode < SIDModeByVersion || e.Mode > SIDModeLearn {
		err = errors.Join(err, fmt.Errorf("there is no mode %d", e.Mode))
	}
	if e.Path != "" && e.Path[0] != '/' {
		err = errors.Join(err, fmt.Errorf("path %q doesn't begin with a '/'", e.Path))
	}
	if e.Mode != SIDModeLearn {
		var secretErr error
		e.tagger, secretErr = newTagger(secretsOrRandom(e.Secrets, e.Logger, "Engine.IO"))
		err = errors.Join(err, secretErr)
	}
	if err != nil {
		e.err = fmt.Errorf("affinity: Engine.IO: %w", err)
	}
}
