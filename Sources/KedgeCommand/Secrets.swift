// From the configured key source to the secret itself: key-file, passphrase-file, passphrase-command.
//
// 1. A file that others can read, or that the group can change, protects nothing and is refused.
// 2. Neither a secret nor the output of a command gets into a message, not even when something fails.
package import KedgeCore

/// What opens the repository's data keys (Catalog/FORMAT.md, "Keys").
package enum RepositorySecret: Sendable {
    /// The 32 bytes of a key file.
    case key(Secret)
    /// The bytes of a passphrase.
    case passphrase(Secret)
}

/// Runs a command line with /bin/sh and returns what it left.
package typealias ShellRunner = @Sendable (_ command: String) throws(KedgeError) -> Subprocess.Outcome

/// Reads secrets from where the configuration says.
package struct SecretReader: Sendable {
    private let readFile: FileReader
    private let runShell: ShellRunner

    package init(readFile: @escaping FileReader, runShell: @escaping ShellRunner) {
        self.readFile = readFile
        self.runShell = runShell
    }

    /// The secret of a repository. Throws `key-unsafe`, `key-missing`, or what reading the file failed with.
    package func read(_ source: KeySource) throws(KedgeError) -> RepositorySecret {
        switch source {
        case .keyFile(let path): return .key(try keyFile(path))
        case .passphraseFile(let path):
            let bytes = try secretFile(path, "passphrase file")
            return .passphrase(try firstLine(of: bytes, what: "passphrase file \"\(path)\""))
        case .passphraseCommand(let command): return .passphrase(try passphrase(from: command))
        }
    }

    /// The key in a key file: one line of 64 hexadecimal digits. Throws `key-unsafe`, `key-missing`, `configuration`.
    package func keyFile(_ path: String) throws(KedgeError) -> Secret {
        var text = try secretFile(path, "key file")[...]
        if text.last == 0x0A { text.removeLast() }
        guard text.count == 64, let id = KeyFile.bytes(hex: text) else {
            throw KedgeError(
                .keyMissing, "cannot use key file \"\(path)\"",
                detail: "It does not hold a key: one line of 64 hexadecimal digits.",
                hint: "Name the key file that \"kedge init --generate-key\" made, or bring back a copy of it.")
        }
        return Secret(id)
    }

    private func secretFile(_ path: String, _ what: String) throws(KedgeError) -> [UInt8] {
        let file = try readFile(path, what, 64 << 10)
        let problem: String
        if file.mode & 0o007 != 0 {
            problem = "other users have access to it"
        } else if file.mode & 0o020 != 0 {
            problem = "its group may change it"
        } else {
            return file.bytes
        }
        let octal = String(file.mode & 0o777, radix: 8)
        let mode = String(repeating: "0", count: 4 - octal.utf8.count) + octal
        throw KedgeError(
            .keyUnsafe, "cannot use \(what) \"\(path)\": \(problem)", detail: "Its permissions are \(mode).",
            hint: "Run \"chmod g-w,o= '\(path)'\". If somebody may have read it, add a new key as well.")
    }

    private func passphrase(from command: String) throws(KedgeError) -> Secret {
        let outcome: Subprocess.Outcome
        do {
            outcome = try runShell(command)
        } catch {
            throw error.wrapped("could not run passphrase-command")
        }
        guard outcome.status.isSuccess else {
            let how =
                switch outcome.status {
                case .exited(let status): "It ended with status \(status)."
                case .signalled(let signal): "It was ended by signal \(signal)."
                }
            throw KedgeError(
                .keyMissing, "could not get the passphrase from passphrase-command",
                detail: how + "  What it printed is not shown, since that could be a secret.",
                hint: "Run the command yourself, as the operating system user that runs kedge.")
        }
        return try firstLine(of: outcome.output, what: "the output of passphrase-command")
    }

    /// Up to the first newline. Throws `key-missing` where that is nothing.
    private func firstLine(of bytes: [UInt8], what: String) throws(KedgeError) -> Secret {
        let line = bytes.prefix { $0 != 0x0A }
        guard !line.isEmpty else {
            throw KedgeError(
                .keyMissing, "cannot take a passphrase from \(what)", detail: "Its first line is empty.",
                hint: "The first line must hold the passphrase.")
        }
        return Secret(Array(line))
    }
}

/// The text in a key file.
package enum KeyFile {
    /// The bytes that hexadecimal digits of either case stand for. Nil for anything else.
    static func bytes(hex digits: some Collection<UInt8>) -> [UInt8]? {
        guard digits.count.isMultiple(of: 2) else { return nil }
        var bytes: [UInt8] = []
        var high: UInt8?
        for digit in digits {
            let value: UInt8
            switch digit {
            case 0x30...0x39: value = digit - 0x30
            case 0x41...0x46: value = digit - 0x41 + 10
            case 0x61...0x66: value = digit - 0x61 + 10
            default: return nil
            }
            if let first = high {
                bytes.append(first << 4 | value)
                high = nil
            } else {
                high = value
            }
        }
        return bytes
    }

    /// Makes a new key and writes it durably to a file of its own, mode 0600. Throws `already-exists` where one is there.
    package static func generate(at path: String, random: any RandomSource) throws(KedgeError) -> Secret {
        let key = (0..<4).map { _ in random.next() }.flatMap { word in
            (0..<8).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
        }
        let text = Array((key.hex + "\n").utf8)
        let outcome: DurableFile.Outcome
        do {
            outcome = try DurableFile.write(text, to: RawPath(path), mode: 0o600, random: random)
        } catch {
            throw error.wrapped("could not write key file \"\(path)\"")
        }
        guard outcome == .created else {
            throw KedgeError(
                .alreadyExists, "cannot make key file \"\(path)\"",
                detail: "A file is there already, and a key that is overwritten is lost together with its backups.",
                hint: "Leave out --generate-key to use that file, or choose another name.")
        }
        return Secret(key)
    }
}
