// From the configured key source to the secret itself: key-file, passphrase-file, passphrase-command.
//
// 1. A file that others can read, or that the group can change, protects nothing and is refused. The group may read
//    only what belongs to root, as with PostgreSQL's own ssl_key_file (be-secure-common.c,
//    check_ssl_key_file_permissions).
// 2. Neither a secret nor the output of a command gets into a message, not even when something fails.
package import KedgeCodec
package import KedgeCore

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

    /// The secret of a repository. Throws `key-unsafe`, `key-missing`, `configuration`, `timeout`.
    package func read(_ source: KeySource) throws(KedgeError) -> KeyEncryptionSecret {
        switch source {
        case .keyFile(let path): return try keyFile(path)
        case .passphraseFile(let path): return try passphraseFile(path)
        case .passphraseCommand(let command): return try passphrase(from: command)
        }
    }

    /// The secret of a key file. Throws `key-unsafe` or `configuration`.
    package func keyFile(_ path: String) throws(KedgeError) -> KeyEncryptionSecret {
        // The key itself, 64 hexadecimal digits, does not begin as the configuration wants a path to.
        let bytes = try secretFile(path, "key file", showsPath: path.utf8.first == UInt8(ascii: "/"))
        return try KeyEncryptionSecret(parsingKeyFile: bytes, what: "key file \"\(path)\"")
    }

    /// The passphrase in a file: its one line. Throws `key-unsafe` or `configuration`.
    package func passphraseFile(_ path: String) throws(KedgeError) -> KeyEncryptionSecret {
        let bytes = try secretFile(path, "passphrase file", showsPath: false)
        try SecretReader.refuseMark(bytes, path, "passphrase file", SecretReader.whereNeeded(path))
        if (bytes.last == 0x0A ? bytes.dropLast() : bytes[...]).last == 0x0D {
            throw KedgeError(
                .configuration, "cannot use passphrase file \"\(path)\"",
                detail: "Its line ends with a carriage return, as Windows editors write it, which would be a part of "
                    + "the passphrase.",
                hint: "Remove it: sed -i 's/\\r$//' '\(path)'.  \(SecretReader.whereNeeded(path))")
        }
        // Whether the passphrase was the first line or all of them could be guessed wrong, years later, by another
        // tool.
        if let end = bytes.firstIndex(of: 0x0A), end != bytes.count - 1 {
            throw KedgeError(
                .configuration, "cannot use passphrase file \"\(path)\"", detail: "It has more than one line.",
                hint: "Leave nothing in it but the line with the passphrase.")
        }
        return try KeyEncryptionSecret(parsingPassphrase: bytes, what: "passphrase file \"\(path)\"")
    }

    /// The one line of a file that holds part of a credential. Throws `key-unsafe` or `configuration`.
    func line(of path: String, _ what: String) throws(KedgeError) -> Secret {
        let bytes = try secretFile(path, what, showsPath: false)
        try SecretReader.refuseMark(bytes, path, what)
        let line = bytes.prefix { $0 != 0x0A && $0 != 0x0D }
        guard !line.isEmpty, bytes[line.count...].allSatisfy({ $0 == 0x0A || $0 == 0x0D }) else {
            throw KedgeError(
                .configuration, "cannot use \(what) \"\(path)\"",
                detail: line.isEmpty ? "Its first line is empty." : "It has more than one line.",
                hint: "Leave nothing in it but the one line.")
        }
        return Secret(Array(line))
    }

    /// Throws `configuration`.
    private static func refuseMark(
        _ bytes: [UInt8], _ path: String, _ what: String, _ more: String? = nil
    ) throws(KedgeError) {
        guard ByteOrderMark.begins(bytes) else { return }
        throw KedgeError(
            .configuration, "cannot use \(what) \"\(path)\"",
            detail: "It begins with a byte order mark, as Windows editors write it, which would be a part of the line.",
            hint: ByteOrderMark.hint + (more.map { "  \($0)" } ?? ""))
    }

    /// For a repository that was made with the passphrase as it lies there.
    private static func whereNeeded(_ path: String) -> String {
        "Where a repository was set up with that very passphrase, write passphrase-command = cat '\(path)' in place of "
            + "passphrase-file until \"kedge key rewrap\" has given it another one."
    }

    /// A small file that nobody else may read. `showsPath` is false where the secret itself could have been given in
    /// place of its file: what cannot be read is then not shown. Throws `key-unsafe` or `configuration`.
    func secretFile(_ path: String, _ what: String, showsPath: Bool = true) throws(KedgeError) -> [UInt8] {
        let file: SmallFile
        do throws(KedgeError) {
            file = try readFile(path, what, 64 << 10)
        } catch {
            guard !showsPath else { throw error }
            throw KedgeError(
                error.code, "could not read the \(what)", detail: error.detail,
                hint:
                    "Check that what is configured is the absolute path of a file that this user can read.  It is not "
                    + "shown, since somebody may have given the secret itself.")
        }
        let problem: String
        if file.mode & 0o007 != 0 {
            problem = "other users have access to it"
        } else if file.mode & 0o020 != 0 {
            problem = "its group may change it"
        } else if file.mode & 0o040 != 0 && file.user != 0 {
            problem = "its group may read it"
        } else {
            return file.bytes
        }
        let octal = String(file.mode & 0o777, radix: 8)
        let mode = String(repeating: "0", count: 4 - octal.utf8.count) + octal
        throw KedgeError(
            .keyUnsafe, "cannot use \(what) \"\(path)\": \(problem)",
            detail: "Its permissions are \(mode); only a file that belongs to root may be readable for its group.",
            hint: "Run \"chmod go= '\(path)'\". If somebody may have read it, run \"kedge key rewrap\" and \"kedge key "
                + "rotate\" as well.")
    }

    private func passphrase(from command: String) throws(KedgeError) -> KeyEncryptionSecret {
        let outcome: Subprocess.Outcome
        do {
            outcome = try runShell(command)
        } catch  where error.code == .timeout {
            throw KedgeError(
                .timeout, "could not get the passphrase from passphrase-command: it did not end in time",
                detail: "It was still running after a minute, and has been killed.",
                hint:
                    "Run the command yourself, as the operating system user that runs kedge, without a terminal: it "
                    + "may "
                    + "wait for an answer.")
        } catch {
            guard error.code != .interrupted else { throw error }
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
        // Password managers print notes below the password.
        let line = Array(outcome.output.prefix { $0 != 0x0A })
        guard !line.isEmpty else {
            throw KedgeError(
                .keyMissing, "could not get the passphrase from passphrase-command: it printed none",
                detail: "It ended with status 0, and the first line that it printed is empty.",
                hint: "Run the command yourself, as the operating system user that runs kedge.")
        }
        return try KeyEncryptionSecret(parsingPassphrase: line, what: "output of passphrase-command")
    }
}
