package discovery_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/limpet-go/limpet/balancer/discovery"
)

func TestFile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"lines", "# all\n\na=http://10.0.0.1:3000\r\n  b=http://10.0.0.2,weight=2,group=canary # big\n", "a@10.0.0.1:3000, b@10.0.0.2 weight 2 group canary"},
		{"no end of line", "\ufeffa=http://h", "a@h"},
		{"socket", "a=unix:///run/a#b\n", "error: FILE:1: backend a: its URL"},
		{"bad line", "a=http://h\n\nb=h:80\n", `error: FILE:3: backend b: its URL "h:80" has no scheme`},
		{"twice", "a=http://h\n#\na=http://i\n", "error: FILE:3: backend a stands on line 1, too"},
		{"JSON", `[{"id":"a","url":"http://h"},
			{"id":"b","url":"http://i","weight":3,"group":"v2","draining":"5m"}, {"id":"c","url":"http://j","draining":true}, {"id":"d","url":"http://k","draining":false}]`,
			"a@h, b@i weight 3 group v2 draining 5m0s, c@j draining 0s, d@k"},
		{"JSON, unknown field", "[\n{\"id\":\"a\",\"url\":\"http://h\"},\n{\"id\":\"b\",\"uri\":\"http://h\"}]", `error: FILE:3: json: unknown field "uri"`},
		{"JSON, bad URL", "[{\"id\":\"a\",\"url\":\"http://h\"},\n\n  {\"id\":\"b\",\n\"url\":\"h:80\"}]", "error: FILE:3: backend b: its URL"},
		{"JSON, bad group", `[{"id":"a","url":"http://h","group":"a b"}]`, "error: FILE:1: backend a: its group"},
		{"JSON, bad time", "[\n{\"id\":\"a\",\"url\":\"http://h\",\"draining\":\"5\"}]", `error: FILE:2: draining: want true, false or a time such as "5m"`},
		{"JSON, twice", "[{\"id\":\"a\",\"url\":\"http://h\"},\n{\"id\":\"a\",\"url\":\"http://h\"}]", "error: FILE:2: backend a stands on line 1, too"},
		{"JSON, comma", "[{\"id\":\"a\",\"url\":\"http://h\"}\n{\"id\":\"b\",\"url\":\"http://h\"}]", "error: FILE:"},
		{"JSON, no end", "[{\"id\":\"a\",\"url\":\"http://h\"}\n", "error: FILE:"},
		{"JSON, cut", "[{\"id\":\"a\",\n\"ur", "error: FILE:2: unexpected EOF"},
		{"JSON, more", "[{\"id\":\"a\",\"url\":\"http://h\"}]\n[]", "error: FILE:2: something follows the array"},
		{"large", strings.Repeat("#", 5<<20), "error: FILE has more than 4194304 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "nodes")
				must(t, os.WriteFile(path, []byte(tt.text), 0o600))
				got := strings.ReplaceAll(<-watchSource(t, &discovery.File{Path: path}), path, "FILE")
				if got != tt.want && (!strings.HasPrefix(tt.want, "error") || !strings.HasPrefix(got, tt.want)) {
					t.Errorf("got  %s\nwant %s", got, tt.want)
				}
			})
		})
	}
}

// A file is noticed however it changes, and nothing is told of one that doesn't.
func TestFileChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		path := filepath.Join(dir, "nodes")
		told := watchSource(t, &discovery.File{Path: path})
		told.await(t, "error: open "+path)
		write := func(path, text string) { must(t, os.WriteFile(path, []byte(text), 0o600)) }

		write(path, "a=http://h\n")
		told.is(t, "a@h")
		write(path, "a=http://i\n") // of the same size
		told.is(t, "a@i")
		write(path+".new", "b=http://h\n")
		must(t, os.Rename(path+".new", path))
		if got := <-told; got != "b@h" {
			t.Errorf("told %s, want b@h next", got)
		}
		write(path, "b\n")
		told.await(t, ":1: ")
		write(path, "b=http://h\n")
		told.is(t, "b@h")

		// As a ConfigMap is replaced.
		must(t, os.Mkdir(filepath.Join(dir, "1"), 0o700))
		must(t, os.Mkdir(filepath.Join(dir, "2"), 0o700))
		write(filepath.Join(dir, "1", "nodes"), "c=http://h\n")
		write(filepath.Join(dir, "2", "nodes"), "d=http://h\n")
		must(t, os.Symlink("1", filepath.Join(dir, "data")))
		must(t, os.Remove(path))
		must(t, os.Symlink("data/nodes", path))
		told.is(t, "c@h")
		must(t, os.Symlink("2", filepath.Join(dir, "new")))
		must(t, os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "data")))
		told.is(t, "d@h")
		must(t, os.Remove(path))
		told.await(t, "error: open ")
		must(t, os.Mkdir(path, 0o700))
		told.await(t, "no regular file")
	})
}
