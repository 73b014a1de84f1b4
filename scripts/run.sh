#!/bin/bash
# The main job, end to end, on three virtual devices: prints each command it runs and what came of it, then keeps the
# daemon up until Ctrl-C (--once: stops there).
set -euo pipefail
cd "$(dirname "$0")/.."

once=
case "${1:-}" in
--once) once=1 ;;
"") ;;
*) echo "usage: run.sh [--once]" >&2; exit 2 ;;
esac

bold=; dim=; plain=
if [ -t 1 ]; then bold=$'\e[1m'; dim=$'\e[2m'; plain=$'\e[0m'; fi
step() { printf '\n%s── %s%s\n' "$bold" "$1" "$plain"; }
show() { # prints a command as a person would type it, and runs it
	printf '%s$ %s%s\n' "$bold" "$(quoted "$@")" "$plain"
	"$@"
}
quoted() {
	local word out=
	for word in "$@"; do
		case $word in
		*[!A-Za-z0-9_./:=,@%+-]*|'') out="$out '$word'" ;;
		*) out="$out $word" ;;
		esac
	done
	printf '%s' "${out# }"
}
note() { printf '%s%s%s\n' "$dim" "$1" "$plain"; }
say() { printf '%s$ %s%s\n' "$bold" "$1" "$plain"; }
refused() { # the command has to fail
	printf '%s$ %s%s\n' "$bold" "$(quoted "$@")" "$plain"
	if "$@"; then echo "this should have been refused" >&2; exit 1; fi
}

echo "building ..."
mkdir -p build/bin
go build -ldflags='-s -w' -o build/bin/ ./cmd/holdfast ./cmd/holdfastd ./softhsm-test/cmd/devices
export PATH=$PWD/build/bin:$PATH

D=$(mktemp -d "${TMPDIR:-/tmp}/holdfast.XXXXXX")
daemon= devices=
cleanup() {
	set +e
	trap - EXIT INT TERM
	[ -z "$daemon" ] || { kill "$daemon"; wait "$daemon"; }
	[ -z "$devices" ] || { kill "$devices"; wait "$devices"; }
	rm -rf "$D"
} 2>/dev/null
trap cleanup EXIT
trap 'exit 130' INT TERM

step "Three devices: a SoftHSM2 token, a TPM (swtpm), a PIV card in a pcscd reader"
printf '%s$ devices --dir %s &%s\n' "$bold" "$D" "$plain"
mkfifo "$D/ready"
devices --dir "$D" >"$D/ready" 2>"$D/devices.log" &
devices=$!
if ! grep -m1 '^ready$' "$D/ready"; then
	cat "$D/devices.log" >&2
	[ "$(id -u)" -eq 0 ] || echo "The card reader needs user namespaces; where they are forbidden, run this as root." >&2
	exit 1
fi
rm "$D/ready"

step "One daemon over all of them"
printf '%s$ holdfastd --config %s/holdfastd.yaml &%s\n' "$bold" "$D" "$plain"
holdfastd --config "$D/holdfastd.yaml" 2>"$D/holdfastd.log" &
daemon=$!
export HOLDFAST_SOCKET=$D/holdfastd.sock
printf '%s$ export HOLDFAST_SOCKET=%s%s\n' "$bold" "$HOLDFAST_SOCKET" "$plain"
if ! show holdfast status --wait 60s; then cat "$D/holdfastd.log" >&2; exit 1; fi

step "Keys are born inside the devices"
show holdfast key create org-control --backend hsm --algorithm EdDSA --purpose did-control
show holdfast key create org-issuer --backend hsm --algorithm ES256 --purpose assertion --wrapped
show holdfast key create server --backend tpm --algorithm ES256 --purpose did-auth
show holdfast key create org-next --backend card --algorithm EdDSA --purpose did-next --pin-policy once --touch-policy never
show holdfast key create alice --backend card --algorithm ES256 --purpose did-auth
show holdfast key list

step "Each signs; OpenSSL, which knows nothing of Holdfast, verifies"
cd "$D"
printf 'pay 100 to bob\n' >message
for key in org-issuer server alice; do
	show holdfast key sign $key --input message --output $key.sig
	show holdfast key public $key --format pem --output $key.pem
	show openssl dgst -sha256 -verify $key.pem -signature $key.sig message
done
show holdfast key sign org-control --input message --output org-control.sig
show holdfast key public org-control --output org-control.pem
show openssl pkeyutl -verify -pubin -inkey org-control.pem -rawin -in message -sigfile org-control.sig

step "The HSM's own tool agrees: sensitive, never extractable, local"
module=$(sed -n 's/^ *module: *"\(.*\)"$/\1/p' holdfastd.yaml)
export SOFTHSM2_CONF=$D/softhsm/softhsm2.conf
say "$(quoted pkcs11-tool --module "$module" --token-label holdfast --login --list-objects --type privkey)"
pkcs11-tool --module "$module" --token-label holdfast --login --pin "$(cat pins/hsm)" --list-objects --type privkey

step "Evidence for someone who does not trust us: checked offline, without the daemon"
nonce=$(openssl rand -hex 16)
show holdfast key attest server --output evidence-tpm --nonce "$nonce"
note "(the verifier asks the TPM once whether its attestation key is its own)"
show holdfast evidence challenge evidence-tpm --output question --keep secret
show holdfast backend activate tpm --input question --output answer
show holdfast evidence trust evidence-tpm --keep secret --answer answer --trust-anchor trust/tpm-ek-ca.pem --output tpm-ak.pem
show holdfast evidence verify evidence-tpm --nonce "$nonce" --trust-anchor trust/tpm-ek-ca.pem --trust-anchor tpm-ak.pem
show holdfast key attest alice --output evidence-card --nonce "$nonce"
show holdfast evidence verify evidence-card --nonce "$nonce" --trust-anchor trust/piv-attestation-root.pem
show holdfast key attest org-control --output evidence-hsm
show holdfast evidence verify evidence-hsm --unanchored

step "One bit changed is one bit too many"
cp -r evidence-tpm evidence-forged
note "(one bit of evidence-forged/statement.json is flipped)"
perl -e 'open F, "+<:raw", $ARGV[0] or die; seek F, 40, 0; read F, $b, 1; seek F, 40, 0; print F chr(ord($b) ^ 1)' evidence-forged/statement.json
refused holdfast evidence verify evidence-forged --nonce "$nonce" --trust-anchor tpm-ak.pem

step "A DID: controlled by the HSM, with the card committed to as the key that may take over"
show holdfast did create --method webvh --domain id.holdfast.test --path org --key org-control --next-key org-next \
	--authentication server --assertion org-issuer
did=$(holdfast did list --json | sed -n 's/.*"did": *"\(did:webvh:[^"]*\)".*/\1/p' | head -n1)
show holdfast did resolve "$did"
public=$(holdfast status --json | sed -n 's/.*"httpAddress": *"https:\/\/\([^"]*\)".*/\1/p')
show curl -sS --cacert trust/web-ca.pem --connect-to "id.holdfast.test:443:$public" https://id.holdfast.test/org/did.jsonl
show holdfast did create --method key --key alice

step "What a person sees when something is wrong"
refused holdfast key create p521 --backend card --algorithm ES512 --purpose assertion
refused holdfast key sign nobody --input message --output -
refused holdfast key destroy org-control --yes
show holdfast doctor --config holdfastd.yaml

step "Done"
[ -z "$once" ] || exit 0
cat <<END
The daemon stays up until Ctrl-C. In another terminal:

  export PATH=$(dirname "$(command -v holdfast)"):\$PATH HOLDFAST_SOCKET=$HOLDFAST_SOCKET
  holdfast status

JSON over HTTP works too:  curl --unix-socket $HOLDFAST_SOCKET http://localhost/v1/keys
The daemon's log:          $D/holdfastd.log
END
wait "$daemon"
