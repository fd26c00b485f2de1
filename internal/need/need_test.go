package need_test

import (
	"runtime"
	"testing"

	"github.com/limpet-go/limpet/internal/need"
)

// recorder is a test that notes how it ended.
type recorder struct {
	testing.TB
	verdict string
}

func (r *recorder) Helper() {}

func (r *recorder) Skip(...any) {
	r.verdict = "skipped"
	runtime.Goexit()
}

func (r *recorder) Fatalf(string, ...any) {
	r.verdict = "failed"
	runtime.Goexit()
}

// What is missing skips a test, unless it was said that it must be there.
func TestProgram(t *testing.T) {
	for _, tt := range []struct{ name, require, file, want string }{
		{"there", "", "go", ""},
		{"missing", "", "no-such-program", "skipped"},
		{"missing, others required", "node,redis", "no-such-program", "skipped"},
		{"missing, required", "node,thing,redis", "no-such-program", "failed"},
		{"there, required", "thing", "go", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("LIMPET_REQUIRE", tt.require)
			r := &recorder{TB: t}
			done := make(chan struct{})
			go func() {
				defer close(done)
				need.Program(r, "thing", tt.file)
			}()
			if <-done; r.verdict != tt.want {
				t.Errorf("%q, want %q", r.verdict, tt.want)
			}
		})
	}
}
