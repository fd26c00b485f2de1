//go:build linux

package role

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"
)

func TestMessage(t *testing.T) {
	t.Parallel()
	for _, size := range []int{64, 1024} {
		m := newMessage(size, 1234567890)
		var text string
		if err := json.Unmarshal(m, &text); err != nil || len(m) != size {
			t.Errorf("%d bytes of %d, %v", len(m), size, err)
		}
		if at, ok := sentAt([]byte(`{"push":` + string(m) + `}`)); at != 1234567890 || !ok {
			t.Errorf("time %d, %t", at, ok)
		}
	}
	for _, other := range []string{"", "2", `{"connect":{}}`, "t=12"} {
		if IsMessage([]byte(other)) {
			t.Errorf("%q is taken for a message", other)
		}
	}
}

// What is published is counted, with the time that it took if that is asked for.
func TestRun(t *testing.T) {
	t.Parallel()
	way := make(chan []byte)
	p := &Peer{
		Publish: func(_ context.Context, _ string, data []byte) error { way <- data; return nil },
		Subscribe: func(ctx context.Context, _ string, got func([]byte)) error {
			for {
				select {
				case m := <-way:
					got(m)
				case <-ctx.Done():
					return nil
				}
			}
		},
	}
	var ask [2]func(Command) Report
	for i, as := range []string{"publisher", "subscriber"} {
		in, commands := io.Pipe()
		reports, out := io.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- Run(t.Context(), p, in, out, as, "topic") }()
		answers := json.NewDecoder(reports)
		answer := func() (r Report) {
			if err := answers.Decode(&r); err != nil {
				t.Fatal(err)
			}
			return r
		}
		answer()
		ask[i] = func(c Command) Report {
			if err := json.NewEncoder(commands).Encode(c); err != nil {
				t.Fatal(err)
			}
			return answer()
		}
		t.Cleanup(func() {
			commands.Close()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	publisher, subscriber := ask[0], ask[1]
	publisher(Command{Publish: 100, Publishers: 4, Size: 64})
	if r := subscriber(Command{Await: 100}); r.Got != 100 || len(r.Times) != 0 {
		t.Errorf("%+v", r)
	}
	publisher(Command{Publish: 10, Publishers: 1, Size: 64, Rate: 1000})
	r := subscriber(Command{Await: 110})
	if r.Got != 110 || len(r.Times) != 10 {
		t.Errorf("%+v", r)
	}
	for _, d := range r.Times {
		if d <= 0 || time.Duration(d) > time.Minute {
			t.Errorf("a message took %d ns", d)
		}
	}
}

func TestNoRole(t *testing.T) {
	t.Parallel()
	err := Run(t.Context(), &Peer{}, strings.NewReader(""), io.Discard, "spectator", "")
	if err == nil || !strings.Contains(err.Error(), `"spectator"`) {
		t.Errorf("got %v", err)
	}
}
