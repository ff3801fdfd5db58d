package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A backup of a running server is one of a stopped one: unpacked as its help says,
// it is the same server with the same members. A file that is there is kept.
func TestABackupIsTheServerAgain(t *testing.T) {
	dir, shelf := filepath.Join(t.TempDir(), "poet"), t.TempDir()
	e, stop := poetServer(t, dir)
	round := register(t, "http://"+e.REST)
	_, before := fetch(t, "GET", "http://"+e.REST+"/v1/info", nil)
	running, stopped := filepath.Join(shelf, "running one.tar"), filepath.Join(shelf, "stopped.tar")
	said := mustTweedle(t, "poet", "backup", "--dir", dir, "--out", running)
	if got := refused(t, false, "poet", "backup", "--dir", dir, "--out", running); !strings.Contains(got, "never overwritten") {
		t.Error(got)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	var report struct{ Bytes int64 }
	if err := json.Unmarshal([]byte(mustTweedle(t, "poet", "backup", "--dir", dir, "--out", stopped, "--json")), &report); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(stopped); err != nil || info.Size() != report.Bytes || info.Mode() != 0o600 {
		t.Fatalf("%v, %v, %d bytes were told", info, err, report.Bytes)
	}
	for _, file := range []string{running, stopped} {
		if names := inTar(t, file); strings.Join(names, " ") != "identity.key poet.db" {
			t.Fatalf("%s holds %v", file, names)
		}
		restored := filepath.Join(t.TempDir(), "restored")
		_, command, _ := strings.Cut(strings.ReplaceAll(said, running, file), "to restore it: ")
		if out, err := exec.Command("sh", "-c", strings.ReplaceAll(command, "DIR", restored)).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
		e, stop := poetServer(t, restored)
		if _, after := fetch(t, "GET", "http://"+e.REST+"/v1/info", nil); !bytes.Equal(before, after) {
			t.Errorf("%s: the server says %s, and said %s", file, after, before)
		}
		var list struct {
			Rounds []struct {
				ID      string
				Members uint64
			}
		}
		if err := json.Unmarshal([]byte(mustTweedle(t, "poet", "rounds", "--dir", restored, "--json")), &list); err != nil {
			t.Fatal(err)
		}
		if len(list.Rounds) != 1 || list.Rounds[0].ID != round || list.Rounds[0].Members != 1 {
			t.Errorf("%s: rounds %+v", file, list.Rounds)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	if got := refused(t, false, "poet", "backup", "--dir", shelf, "--out", filepath.Join(shelf, "none")); !strings.Contains(got, "identity.key") {
		t.Error(got)
	}
	if names, err := os.ReadDir(shelf); err != nil || len(names) != 2 {
		t.Errorf("left behind: %v, %v", names, err)
	}
	refused(t, true, "poet", "backup", "--dir", dir)
}

func inTar(t *testing.T, file string) (names []string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Mode != 0o600 {
			t.Errorf("%s has mode %o", h.Name, h.Mode)
		}
		names = append(names, h.Name)
	}
}

// The power fails while one of the two heads of the database is written: the option
// that the message names starts the server, once.
func TestATornHeadIsStartedWithTheOptionThatTheMessageNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "poet")
	_, stop := poetServer(t, dir)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "poet.db"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 128), 4096); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	_, option, found := strings.Cut(refused(t, false, poetArgs(dir)...), "start once with ")
	if option, _, _ = strings.Cut(option, ":"); !found || option != "--accept-older-state" {
		t.Fatalf("the message names %q", option)
	}
	for _, args := range [][]string{{option}, nil} {
		_, stop := poetServer(t, dir, args...)
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
}
