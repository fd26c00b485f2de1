package discovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/pause"
)

// File is a [balancer.Source] that reads a file each second. The file has a backend on each
// line, as [balancer.ParseBackend] reads it. What follows a # at the beginning of a line, or
// behind a space, is a comment:
//
//	# eu-west
//	a=http://10.0.0.1:3000
//	b=http://10.0.0.2:3000,weight=2  # the big one
//
// Or it is an array of JSON, whose objects have the fields id, url, weight, group and
// draining, which is true or a time as text within which the clients leave, such as "5m":
//
//	[{"id": "a", "url": "http://10.0.0.1:3000"}, {"id": "b", "url": "http://10.0.0.2:3000", "draining": "5m"}]
//
// A file that can't be read, or that has a single mistake, changes nothing; the log names the
// line. It is best replaced by renaming a new one over it, as ConfigMaps of Kubernetes
// are. One that is written in place is read when it has not changed for a tenth of a second.
//
// The fields must not be changed once the source is followed.
type File struct {
	Path  string
	Grace time.Duration // see [balancer.Target]
}

const (
	fileEvery = time.Second
	fileQuiet = 100 * time.Millisecond
	maxFile   = 4 << 20
)

// Validate reports what is wrong with the fields. The file need not exist.
func (f *File) Validate() error {
	if f.Path == "" {
		return errors.New("discovery: File.Path is empty: want the path of a file with a backend on each line")
	}
	return nil
}

// String returns the source as [Parse] reads it, without options.
func (f *File) String() string { return "file:" + filepath.ToSlash(f.Path) }

// Watch implements [balancer.Source].
func (f *File) Watch(ctx context.Context, update func([]balancer.Target, error)) {
	var known []byte // what was read last
	valid := false   // known was read, and has no mistake
	for {
		text, err := f.read()
		switch {
		case err != nil:
			valid = false
			update(nil, err)
		case !bytes.Equal(text, known) || known == nil:
			known, valid = text, false
			if !pause.For(ctx, fileQuiet) {
				return
			}
			continue // it may be half written
		case !valid:
			targets, err := f.parse(text)
			valid = err == nil
			update(targets, err)
		}
		if !pause.For(ctx, fileEvery) {
			return
		}
	}
}

func (f *File) read() ([]byte, error) {
	// This comes before the file is opened: opening a named pipe waits for a writer, even
	// when ctx has ended.
	if info, err := os.Stat(f.Path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", f.Path)
	}
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", f.Path, maxFile)
	}
	return text, err
}

func (f *File) parse(text []byte) ([]balancer.Target, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	lines := &lines{file: f, first: make(map[string]int)}
	var err error
	if bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
		err = lines.json(text)
	} else {
		err = lines.specs(text)
	}
	return lines.targets, err
}

// lines collects the targets of a file.
type lines struct {
	file    *File
	targets []balancer.Target
	first   map[string]int // the line on which an ID stands
}

func (l *lines) errorf(line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", l.file.Path, line, strings.TrimPrefix(fmt.Sprintf(format, args...), "balancer: "))
}

func (l *lines) add(line int, t balancer.Target) error {
	if other := l.first[t.ID]; other != 0 {
		return l.errorf(line, "backend %s stands on line %d, too", t.ID, other)
	}
	l.first[t.ID] = line
	t.Grace = l.file.Grace
	l.targets = append(l.targets, t)
	return nil
}

func (l *lines) specs(text []byte) error {
	line := 0
	for spec := range strings.Lines(string(text)) {
		line++
		spec = strings.TrimSpace(spec)
		for _, mark := range []string{" #", "\t#"} {
			spec, _, _ = strings.Cut(spec, mark)
		}
		if spec = strings.TrimSpace(spec); spec == "" || spec[0] == '#' {
			continue
		}
		b, err := balancer.ParseBackend(spec)
		if err != nil {
			return l.errorf(line, "%v", err)
		}
		if err := l.add(line, balancer.Target{ID: b.ID(), URL: b.URL().String(), Weight: b.ConfiguredWeight(), Group: b.Group()}); err != nil {
			return err
		}
	}
	return nil
}

// An entry is a backend in a file of JSON.
type entry struct {
	ID       string   `json:"id"`
	URL      string   `json:"url"`
	Weight   int      `json:"weight"`
	Group    string   `json:"group"`
	Draining draining `json:"draining"`
}

// draining is a boolean, or a time as text.
type draining struct {
	on     bool
	within time.Duration
}

func (d *draining) UnmarshalJSON(data []byte) (err error) {
	var within string
	if json.Unmarshal(data, &d.on) == nil {
		return nil
	}
	if err = json.Unmarshal(data, &within); err == nil {
		d.on = true
		d.within, err = time.ParseDuration(within)
	}
	if err != nil || d.within < 0 {
		return errors.New(`draining: want true, false or a time such as "5m"`)
	}
	return nil
}

func (l *lines) json(text []byte) error {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	lineAt := func(offset int64) int { return 1 + bytes.Count(text[:min(offset, int64(len(text)))], []byte("\n")) }
	if _, err := dec.Token(); err != nil { // the bracket
		return l.errorf(1, "%v", err)
	}
	for dec.More() {
		start := dec.InputOffset()
		start += int64(max(0, bytes.IndexAny(text[start:], "{")))
		var e entry
		if err := dec.Decode(&e); err != nil {
			var syntax *json.SyntaxError
			if errors.As(err, &syntax) {
				start = syntax.Offset
			}
			if errors.Is(err, io.ErrUnexpectedEOF) {
				start = int64(len(text))
			}
			return l.errorf(lineAt(start), "%v", err)
		}
		b, err := balancer.NewBackend(e.ID, e.URL, e.Weight)
		if err == nil && e.Group != "" {
			err = b.SetGroup(e.Group)
		}
		if err != nil {
			return l.errorf(lineAt(start), "%v", err)
		}
		t := balancer.Target{ID: e.ID, URL: b.URL().String(), Weight: e.Weight, Group: e.Group, Draining: e.Draining.on, Within: e.Draining.within}
		if err := l.add(lineAt(start), t); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return l.errorf(lineAt(int64(len(text))), "the array has no end: %v", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return l.errorf(lineAt(dec.InputOffset()), "something follows the array")
	}
	return nil
}
