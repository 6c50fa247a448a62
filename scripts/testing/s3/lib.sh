# Shared by the server scripts of this folder (sourced, not run).
log() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { log "$*"; exit 1; }

free_port() { # first port from $1 on which nothing listens
    local p=$1 n
    for ((n = 0; n < 200; n++, p++)); do
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null; then echo "$p"; return; fi
    done
    die "no free port from $1"
}

pid_of() { # NAME MARK: prints the pid when it runs and its command line holds MARK
    local f=$dir/run/$1.pid p
    [ -s "$f" ] || return 1
    p=$(cat "$f")
    [ -r "/proc/$p/cmdline" ] || return 1
    tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | grep -qF -- "$2" || return 1
    echo "$p"
}

spawn() { # NAME COMMAND...: a daemon that outlives the caller's shell and pipes
    local name=$1; shift
    setsid nohup "$@" </dev/null >>"$dir/log/$name.out" 2>&1 9>&- &
    echo $! >"$dir/run/$name.pid"
}

end_pid() { # NAME MARK [SIGNAL]: waits up to 30 s, then kills
    local p n
    if p=$(pid_of "$1" "$2"); then
        kill -"${3:-TERM}" "$p" 2>/dev/null || true
        for ((n = 0; n < 300; n++)); do
            pid_of "$1" "$2" >/dev/null || break
            sleep 0.1
        done
        if pid_of "$1" "$2" >/dev/null; then kill -9 "$p" 2>/dev/null || true; fi
    fi
    rm -f "$dir/run/$1.pid"
}

wait_for() { # SECONDS WHAT COMMAND...
    local end=$((SECONDS + $1)) what=$2; shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { tail -n 5 "$dir"/log/*.out >&2 || true; die "timeout: $what (logs: $dir/log)"; }
        sleep 0.2
    done
}

need_commands() { # COMMAND=PACKAGE...: installs Debian packages for missing commands
    local missing=() x
    for x in "$@"; do command -v "${x%%=*}" >/dev/null || missing+=("${x#*=}"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || die "not root: cannot install ${missing[*]}"
    { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" ||
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; }; } >&2 </dev/null
}

need_venv() { # PYPI-PACKAGE...: a virtual environment, $venv: S3_TEST_VENV or one below the state directory
    local mark
    venv=${S3_TEST_VENV:-$dir/venv}
    mark=$venv/.have-$(printf '%s' "$*" | tr -c 'a-zA-Z0-9.-' '_')
    [ -e "$mark" ] && return 0
    need_commands python3=python3
    if ! python3 -m venv "$venv" >&2; then
        need_commands no-such-command=python3-venv
        python3 -m venv "$venv" >&2 || die "python3 -m venv failed"
    fi
    "$venv/bin/pip" install -q --disable-pip-version-check "$@" >&2 || die "pip install $* failed"
    touch "$mark"
}

make_cert() { # a CA and a server certificate for localhost, 127.0.0.1, *.s3.localhost
    [ -s "$dir/tls/server.crt" ] && return 0
    mkdir -p "$dir/tls"
    (
        cd "$dir/tls"
        openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj '/CN=test S3 CA' \
            -keyout ca.key -out ca.crt -addext 'keyUsage=critical,keyCertSign,cRLSign'
        openssl req -newkey rsa:2048 -nodes -subj '/CN=localhost' -keyout server.key -out server.csr
        printf 'subjectAltName=DNS:localhost,DNS:s3.localhost,DNS:*.s3.localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n' >server.ext
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 \
            -extfile server.ext -out server.crt
    ) >/dev/null 2>"$dir/log/openssl.err" || die "openssl failed: $dir/log/openssl.err"
}

load_settings() {
    [ -f "$dir/settings" ] || return 1
    # shellcheck disable=SC1091
    . "$dir/settings"
}

save_settings() { local v; for v in "$@"; do printf '%s=%q\n' "$v" "${!v}"; done >"$dir/settings"; }

http_code() { curl -s -o /dev/null -m 10 -w '%{http_code}' "$@"; }

s3_bucket() { # creates $bucket when missing
    local code
    code=$(http_code -X PUT --aws-sigv4 "aws:amz:$region:s3" -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' \
        --user "$access:$secret" "http://127.0.0.1:$port/$bucket")
    [ "$code" = 200 ] || [ "$code" = 409 ]
}

print_env() {
    cat <<ENV
export S3_ENDPOINT='http://127.0.0.1:$port'
export S3_TLS_ENDPOINT='https://127.0.0.1:$tls_port'
export S3_CA_FILE='$dir/tls/ca.crt'
export S3_VHOST_DOMAIN='$vhost'
export S3_HOST='127.0.0.1'
export S3_PORT='$port'
export S3_TLS_PORT='$tls_port'
export S3_REGION='$region'
export S3_BUCKET='$bucket'
export S3_ACCESS_KEY='$access'
export S3_SECRET_KEY='$secret'
export S3_ACCESS_KEY2='$access2'
export S3_SECRET_KEY2='$secret2'
ENV
}

enter_dir() { # CREATE? : makes $dir absolute
    [ "${1:-}" = create ] && mkdir -p "$dir"/{run,log}
    [ -d "$dir" ] || die "not created ($dir)"
    dir=$(cd "$dir" && pwd -P)
}
