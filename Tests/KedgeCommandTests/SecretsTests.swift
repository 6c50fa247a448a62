// Secrets are read from files and commands, refused where others could reach them, and never shown.
import Glibc
import KedgeCodec
import KedgeCore
import KedgeTestSupport
import Testing

@testable import KedgeCommand

@Suite struct SecretsTests {
    private func read(
        _ source: KeySource, _ text: String = "", mode: UInt32 = 0o600, user: UInt32 = 0
    ) throws(KedgeError) -> KeyEncryptionSecret {
        let file: FileReader = { (_: String, _: String, _: Int) throws(KedgeError) in
            SmallFile(bytes: Array(text.utf8), mode: mode, user: user)
        }
        return try SecretReader(readFile: file, runShell: Surroundings.real.runShell).read(source)
    }

    private func bytes(_ secret: KeyEncryptionSecret) -> [UInt8] {
        switch secret {
        case .keyFile(let secret), .passphrase(let secret): secret.bytes
        }
    }

    private let digits = String(repeating: "0aF9", count: 16)

    @Test("a key file holds 64 hexadecimal digits, with or without a newline")
    func keyFile() throws {
        let expected: [UInt8] = (0..<16).flatMap { _ in [0x0A, 0xF9] as [UInt8] }
        for text in [digits, digits + "\n"] {
            let secret = try read(.keyFile("/k"), text)
            #expect(bytes(secret) == expected)
            #expect("\(secret)" == "keyFile(<redacted>)")
        }
    }

    @Test("what is not a key is refused without being shown")
    func notAKey() {
        let notOne = "It does not hold one line of 64 hexadecimal digits."
        let cases: [(String, String)] = [
            ("", "It is empty."), ("\n", "It is empty."), ("\(digits)0a", notOne), ("\n\(digits.dropLast())", notOne),
            ("\(digits.dropLast(2))zz", notOne), (" \(digits.dropLast())", notOne),
            ("\(digits.dropLast())\n\n", notOne),
            ("\(digits.dropLast())", "It was cut: it holds 63 of the 64 hexadecimal digits of a key."),
        ]
        for (text, problem) in cases {
            #expect(
                failure { () throws(KedgeError) in try read(.keyFile("/k"), text) } == """
                    kedge: error: cannot use key file "/k"
                    detail: \(problem)
                    hint: Put the saved copy back.  A new key does not open what the old one sealed; for a new \
                    repository, "kedge init --generate-key FILE" makes one.
                    code: configuration
                    """)
        }
    }

    @Test("files that others can reach are refused", arguments: [0o601, 0o602, 0o604, 0o644, 0o660, 0o620] as [UInt32])
    func unsafe(_ mode: UInt32) {
        let problem = mode & 7 != 0 ? "other users have access to it" : "its group may change it"
        for (source, what) in [(KeySource.keyFile("/k"), "key file"), (.passphraseFile("/k"), "passphrase file")] {
            #expect(
                failure { () throws(KedgeError) in try read(source, digits, mode: mode) } == """
                    kedge: error: cannot use \(what) "/k": \(problem)
                    detail: Its permissions are 0\(String(mode, radix: 8)); only a file that belongs to root may be \
                    readable for its group.
                    hint: Run "chmod go= '/k'". If somebody may have read it, run "kedge key rewrap" and "kedge key \
                    rotate" as well.
                    code: key-unsafe
                    """)
        }
    }

    @Test("the group may read only what belongs to root", arguments: [0o640, 0o440, 0o750] as [UInt32])
    func groupReadable(_ mode: UInt32) {
        let text = failure { () throws(KedgeError) in try read(.keyFile("/k"), digits, mode: mode, user: 26) }
        #expect(text.hasPrefix("kedge: error: cannot use key file \"/k\": its group may read it\n"), "\(text)")
    }

    @Test("the group may read what belongs to root", arguments: [0o600, 0o400, 0o640, 0o440, 0o700] as [UInt32])
    func safe(_ mode: UInt32) throws {
        #expect(try bytes(read(.keyFile("/k"), digits, mode: mode)).count == 32)
    }

    @Test("a passphrase is the one line of a file, or the first line that a command prints (lesson 46)")
    func passphrase() throws {
        #expect(try bytes(read(.passphraseFile("/p"), " ä b \n")) == Array(" ä b ".utf8))
        #expect(try bytes(read(.passphraseFile("/p"), "x")) == Array("x".utf8))
        #expect(try bytes(read(.passphraseCommand("printf 'x y\\nz'"))) == Array("x y".utf8))
    }

    @Test("what is empty, or has several lines where one is expected, is no passphrase")
    func notAPassphrase() {
        #expect(
            failure { () throws(KedgeError) in try read(.passphraseFile("/p"), "\n") } == """
                kedge: error: cannot use passphrase file "/p"
                detail: It is empty.
                hint: Put a passphrase there.
                code: configuration
                """)
        #expect(
            failure { () throws(KedgeError) in try read(.passphraseFile("/p"), "one\ntwo\n") } == """
                kedge: error: cannot use passphrase file "/p"
                detail: It has more than one line.
                hint: Leave nothing in it but the line with the passphrase.
                code: configuration
                """)
        #expect(
            failure { () throws(KedgeError) in try read(.passphraseCommand("true")) } == """
                kedge: error: could not get the passphrase from passphrase-command: it printed none
                detail: It ended with status 0, and the first line that it printed is empty.
                hint: Run the command yourself, as the operating system user that runs kedge.
                code: key-missing
                """)
    }

    @Test("a command that fails shows its status, and neither its text nor its output (lesson 46)")
    func failingCommand() {
        let text = failure { () throws(KedgeError) in
            try read(.passphraseCommand("echo hunter2; echo hunter3 >&2; exit 7"))
        }
        #expect(
            text == """
                kedge: error: could not get the passphrase from passphrase-command
                detail: It ended with status 7.  What it printed is not shown, since that could be a secret.
                hint: Run the command yourself, as the operating system user that runs kedge.
                code: key-missing
                """)
    }

    @Test("what Windows editors add to a passphrase is refused, and can still be given", arguments: ["\r", "\r\n"])
    func windowsLines(_ end: String) throws {
        let needed =
            "Where a repository was set up with that very passphrase, write passphrase-command = cat '/p' in place of "
            + "passphrase-file until \"kedge key rewrap\" has given it another one."
        #expect(
            failure { () throws(KedgeError) in try read(.passphraseFile("/p"), "geheim\(end)") } == """
                kedge: error: cannot use passphrase file "/p"
                detail: Its line ends with a carriage return, as Windows editors write it, which would be a part of \
                the passphrase.
                hint: Remove it: sed -i 's/\\r$//' '/p'.  \(needed)
                code: configuration
                """)
        #expect(
            failure { () throws(KedgeError) in try read(.passphraseFile("/p"), "\u{FEFF}geheim\n") } == """
                kedge: error: cannot use passphrase file "/p"
                detail: It begins with a byte order mark, as Windows editors write it, which would be a part of the \
                line.
                hint: Save it as UTF-8 without a byte order mark.  \(needed)
                code: configuration
                """)
        #expect(try bytes(read(.passphraseCommand("printf '\u{FEFF}x\\r\\n'"))) == Array("\u{FEFF}x\r".utf8))
        #expect(try bytes(read(.passphraseFile("/p"), "a\rb\u{FEFF}")) == Array("a\rb\u{FEFF}".utf8))
    }

    @Test("a secret in the place of its file is not shown when that file can't be read")
    func secretForPath() {
        let secret = "/wJalrXUtnFEMI/K7MDENG"
        let reader = SecretReader(readFile: SmallFile.read, runShell: Surroundings.real.runShell)
        func text(_ what: String) -> String {
            """
            kedge: error: could not read the \(what)
            detail: The system said: No such file or directory (ENOENT).
            hint: Check that what is configured is the absolute path of a file that this user can read.  It is not \
            shown, since somebody may have given the secret itself.
            code: configuration
            """
        }
        #expect(
            failure { () throws(KedgeError) in try reader.read(.passphraseFile(secret)) } == text("passphrase file"))
        #expect(
            failure { () throws(KedgeError) in try reader.line(of: secret, "secret access key file") }
                == text("secret access key file"))
        // A key file's content is no absolute path.
        #expect(failure { () throws(KedgeError) in try reader.keyFile("/no/such.key") }.contains("/no/such.key"))
    }

    @Test("the work directory is made for us alone, and refused where somebody else prepared it")
    func workDirectory() throws {
        let directory = try TemporaryDirectory()
        let user = geteuid()
        let path = directory("work")
        try WorkDirectory.prepare(path, user: user)
        try WorkDirectory.prepare(path, user: user)
        #expect(try FileStatus(at: RawPath(path)).mode & 0o7777 == 0o700)
        func refusal(_ path: String, user: UInt32) -> String {
            failure { () throws(KedgeError) in try WorkDirectory.prepare(path, user: user) }
        }
        func expected(_ path: String, _ problem: String) -> String {
            """
            kedge: error: cannot use work directory "\(path)"
            detail: \(problem)
            hint: Remove it after a look at it, or set work-directory to another path.
            code: permission
            """
        }
        let foreign = "It belongs to the user with id \(user), but this process runs as user id \(user + 1)."
        #expect(refusal(path, user: user + 1) == expected(path, foreign))
        try FileSystem.createSymbolicLink(at: RawPath(directory("link")), target: RawPath(path))
        #expect(refusal(directory("link"), user: user) == expected(directory("link"), "It is not a directory."))
        let shared = directory("shared")
        _ = try Directory.create(at: RawPath(shared), mode: 0o770)
        #expect(refusal(shared, user: user) == expected(shared, "Other users can write to it."))
    }

    @Test("small files are read whole, bounded, and only if they are regular files")
    func smallFiles() throws {
        let directory = try TemporaryDirectory()
        let path = directory("file")
        let text = [UInt8](repeating: 7, count: 1000)
        _ = try DurableFile.write(text, to: RawPath(path), mode: 0o604, random: SystemRandomSource())
        let file = try SmallFile.read(path, "key file", 1000)
        #expect(file.bytes == text)
        #expect(file.mode == 0o604)
        #expect(
            failure { () throws(KedgeError) in try SmallFile.read(path, "key file", 999) } == """
                kedge: error: could not read key file "\(path)"
                detail: It is 1000 bytes long, and a file of this kind has at most 999.
                hint: Check that this is the right file.
                code: configuration
                """)
        #expect(
            failure { () throws(KedgeError) in try SmallFile.read("/dev/zero", "key file", 9) } == """
                kedge: error: could not read key file "/dev/zero"
                detail: It is not a regular file.
                hint: Name a regular file.
                code: configuration
                """)
        #expect(
            failure { () throws(KedgeError) in try SmallFile.read(directory("none"), "key file", 9) } == """
                kedge: error: could not read key file "\(directory("none"))"
                detail: The system said: No such file or directory (ENOENT).
                hint: Check that this path exists and is spelled right.
                code: configuration
                """)
        // Files such as those of /proc have no size that could be trusted.
        #expect(try !SmallFile.read("/proc/self/status", "status file", 1 << 20).bytes.isEmpty)
    }
}
