package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/cmd/internal/config"
)

const good = `
state_dir: state
socket: {path: holdfastd.sock, allow_uids: [1000]}
http: {listen: "127.0.0.1:0"}
resolver: {pins: {"id.example.test:443": "127.0.0.1:8443"}}
backends:
  - name: hsm
    verify_after_sign: false
    pkcs11:
      module: /usr/lib/softhsm/libsofthsm2.so
      token_label: holdfast
      pin: {file: pins/hsm}
      environment: {SOFTHSM2_CONF: /etc/softhsm2.conf}
      call_timeout: 5s
  - name: tpm
    tpm2: {device: /dev/tpmrm0}
  - name: swtpm
    tpm2: {device: "unix:swtpm/tpm.sock"}
  - name: card
    piv: {serial: 12345678, pin: {credential: card}}
`

func TestGoodConfiguration(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "holdfastd.yaml")
	if err := os.WriteFile(path, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.StateDir != filepath.Join(dir, "state") || c.Backends[0].PKCS11.PIN.File != filepath.Join(dir, "pins/hsm") {
		t.Errorf("relative paths are not relative to the file: %q, %q", c.StateDir, c.Backends[0].PKCS11.PIN.File)
	}
	if v := c.Backends[0].VerifyAfterSign; v == nil || *v {
		t.Error("verify_after_sign: false was lost")
	}
	if device := c.Backends[2].TPM2.Device; device != "unix:"+filepath.Join(dir, "swtpm/tpm.sock") {
		t.Errorf("the TPM's socket is %q", device)
	}
	if c.Backends[3].PIV.Serial != 12345678 {
		t.Errorf("serial is %d", c.Backends[3].PIV.Serial)
	}
}

func TestBadConfigurations(t *testing.T) {
	for name, test := range map[string]struct{ old, new, want string }{
		"typo":            {"token_label", "token_labl", `unknown field "token_labl"`},
		"typo at the top": {"state_dir", "statedir", `unknown field "statedir"`},
		"doubled":         {"state_dir: state", "state_dir: state\nstate_dir: other", "already defined"},
		"wrong type":      {"[1000]", "[me]", "[3:45] "},
		"not YAML":        {"backends:", "backends: [", ""},
		"no state":        {"state_dir: state", "", "state_dir is missing"},
		"no socket":       {"path: holdfastd.sock, ", "", "socket.path is missing"},
		"two kinds":       {"tpm2: {device: /dev/tpmrm0}", "tpm2: {device: /dev/tpmrm0}\n    piv: {pin: {prompt: true}}", "exactly one of"},
		"no kind":         {"    tpm2: {device: /dev/tpmrm0}\n", "", "exactly one of"},
		"name twice":      {"name: tpm", "name: hsm", "used twice"},
		"bad name":        {"name: tpm", "name: TPM one", "lower-case"},
		"inline PIN":      {"{file: pins/hsm}", `"1234"`, "pin"},
		"two PINs":        {"{file: pins/hsm}", `{file: pins/hsm, prompt: true}`, "one of file, credential and prompt"},
		"no PIN":          {"{file: pins/hsm}", `{}`, "one of file, credential and prompt"},
		"open socket":     {"{path: holdfastd.sock,", `{path: holdfastd.sock, mode: "0666",`, "socket.mode"},
		"log level":       {"backends:", "log: {level: loud}\nbackends:", "log.level"},
		"duration":        {"5s", "soon", "duration"},
		"softkey":         {"tpm2: {device: /dev/tpmrm0}", "softkey: {}", `unknown field "softkey"`},
		"key alone":       {`{listen: "127.0.0.1:0"}`, `{listen: "127.0.0.1:0", key: x}`, "go together"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(good, test.old, test.new, 1)
			if text == good {
				t.Fatal("nothing was replaced")
			}
			_, err := config.Parse([]byte(text))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got %v, want an error with %q", err, test.want)
			}
		})
	}
	_, err := config.Parse([]byte(strings.Replace(good, "token_label", "token_labl", 1)))
	if !strings.Contains(err.Error(), "[11:") && !strings.Contains(err.Error(), "11 |") {
		t.Errorf("the error does not name line 11:\n%v", err)
	}
}

func TestNoPINInErrors(t *testing.T) {
	const pin = "7351-sesame"
	for _, wrong := range []string{
		`{insecure: "` + pin + `", tries: 3}`, `{insecure: "` + pin + `}`, `{insecure: ["` + pin + `"]}`, `{"insecure": {` + pin + `: 1}}`,
		`{insecure: "` + pin + `"}` + "\n      tokn_label: x", `"` + pin + `"`, pin, `{file: {"` + pin + `": 1}}`, `{prompt: "` + pin + `"}`,
	} {
		text := strings.Replace(good, "{file: pins/hsm}", wrong, 1)
		if _, err := config.Parse([]byte(text)); err == nil || strings.Contains(err.Error(), pin) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

func TestPINFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pin")
	write := func(text string, mode os.FileMode) config.PIN {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return config.PIN{File: path}
	}
	pin, err := write("1234\n", 0o600).Read(t.Context(), "hsm")
	if err != nil || string(pin.Bytes()) != "1234" {
		t.Fatalf("%v", err)
	}
	for what, source := range map[string]config.PIN{
		"missing":       {File: path + "x"},
		"no credential": {Credential: "../etc/passwd"},
	} {
		if _, err := source.Read(t.Context(), "hsm"); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := write("", 0o600).Read(t.Context(), "hsm"); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("an empty file: %v", err)
	}
	_, err = write("1234", 0o644).Read(t.Context(), "hsm")
	if err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file others can read: %v", err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", filepath.Dir(path))
	write("5678", 0o400)
	pin, err = config.PIN{Credential: "pin"}.Read(t.Context(), "hsm")
	if err != nil || string(pin.Bytes()) != "5678" {
		t.Fatalf("credential: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("state_dir: [\n"))
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := config.Parse(text)
		if err == nil && (c.StateDir == "" || c.Socket.Path == "") {
			t.Error("an incomplete configuration was taken")
		}
	})
}
