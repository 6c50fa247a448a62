// Secrets are read from files and commands, refused where others could reach them, and never shown.
import Glibc
import KedgeCore
import KedgeTestSupport
import Testing

@testable import KedgeCommand

@Suite struct SecretsTests {
    private func read(
        _ source: KeySource, _ text: String = "", mode: UInt32 = 0o600
    ) throws(KedgeError) -> RepositorySecret {
        let file: FileReader = { (_: String, _: String, _: Int) throws(KedgeError) in
            SmallFile(bytes: Array(text.utf8), mode: mode)
        }
        return try SecretReader(readFile: file, runShell: Surroundings.real.runShell).read(source)
    }

    private func bytes(_ secret: RepositorySecret) -> [UInt8] {
        switch secret {
        case .key(let secret), .passphrase(let secret): secret.bytes
        }
    }

    private let digits = String(repeating: "0aF9", count: 16)

    @Test("a key file holds 64 hexadecimal digits, with or without a newline")
    func keyFile() throws {
        let expected: [UInt8] = (0..<16).flatMap { _ in [0x0A, 0xF9] as [UInt8] }
        for text in [digits, digits + "\n"] {
            let secret = try read(.keyFile("/k"), text)
            #expect(bytes(secret) == expected)
            #expect("\(secret)" == "key(<redacted>)")
        }
    }

    @Test("what is not a key is refused without being shown", arguments: ["", "0a", "\n", "zz", " "])
    func notAKey(_ rest: String) {
        let text = rest == "zz" ? digits.dropLast(2) + rest : rest == "0a" ? digits + rest : rest + digits.dropLast()
        #expect(
            failure { () throws(KedgeError) in try read(.keyFile("/k"), String(text)) } == """
                kedge: error: cannot use key file "/k"
                detail: It does not hold a key: one line of 64 hexadecimal digits.
                hint: Name the key file that "kedge init --generate-key" made, or bring back a copy of it.
                code: key-missing
                """)
    }

    @Test("files that others can reach are refused", arguments: [0o601, 0o602, 0o604, 0o644, 0o660, 0o620] as [UInt32])
    func unsafe(_ mode: UInt32) {
        let problem = mode & 7 != 0 ? "other users have access to it" : "its group may change it"
        for (source, what) in [(KeySource.keyFile("/k"), "key file"), (.passphraseFile("/k"), "passphrase file")] {
            #expect(
                failure { () throws(KedgeError) in try read(source, digits, mode: mode) } == """
                    kedge: error: cannot use \(what) "/k": \(problem)
                    detail: Its permissions are 0\(String(mode, radix: 8)).
                    hint: Run "chmod g-w,o= '/k'". If somebody may have read it, add a new key as well.
                    code: key-unsafe
                    """)
        }
    }

    @Test("the group may read", arguments: [0o600, 0o400, 0o640, 0o440, 0o700] as [UInt32])
    func safe(_ mode: UInt32) throws {
        #expect(try bytes(read(.keyFile("/k"), digits, mode: mode)).count == 32)
    }

    @Test("a passphrase is the first line, byte for byte, of a file or of what a command prints (lesson 46)")
    func passphrase() throws {
        #expect(try bytes(read(.passphraseFile("/p"), " ä b \nrest")) == Array(" ä b ".utf8))
        #expect(try bytes(read(.passphraseCommand("printf 'x y\\nz'"))) == Array("x y".utf8))
    }

    @Test("an empty first line is no passphrase")
    func emptyPassphrase() {
        let hint = "hint: The first line must hold the passphrase.\ncode: key-missing"
        #expect(
            failure { () throws(KedgeError) in try read(.passphraseFile("/p"), "\nsecret") }
                == "kedge: error: cannot take a passphrase from passphrase file \"/p\"\n"
                + "detail: Its first line is empty.\n" + hint)
        #expect(
            failure { () throws(KedgeError) in try read(.passphraseCommand("true")) }
                == "kedge: error: cannot take a passphrase from the output of passphrase-command\n"
                + "detail: Its first line is empty.\n" + hint)
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

    @Test("a new key file is private, random, and never overwrites one")
    func generate() throws {
        let directory = try TemporaryDirectory()
        let path = directory("main.key")
        let key = try KeyFile.generate(at: path, random: SystemRandomSource())
        #expect(key.bytes.count == 32)
        #expect(Set(key.bytes).count > 8)
        let reader = SecretReader(readFile: SmallFile.read, runShell: Surroundings.real.runShell)
        #expect(try reader.keyFile(path).bytes == key.bytes)
        #expect(try SmallFile.read(path, "key file", 100).mode == 0o600)
        let text = failure { () throws(KedgeError) in try KeyFile.generate(at: path, random: SystemRandomSource()) }
        #expect(
            text == """
                kedge: error: cannot make key file "\(path)"
                detail: A file is there already, and a key that is overwritten is lost together with its backups.
                hint: Leave out --generate-key to use that file, or choose another name.
                code: already-exists
                """)
        #expect(try reader.keyFile(path).bytes == key.bytes)
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
                kedge: error: cannot read key file "\(path)"
                detail: It is larger than 999 bytes, the most that makes sense.
                hint: Make sure that this is the file that you mean.
                code: configuration
                """)
        #expect(
            failure { () throws(KedgeError) in try SmallFile.read("/dev/zero", "key file", 9) } == """
                kedge: error: cannot read key file "/dev/zero"
                detail: It is not a regular file.
                hint: Name a regular file.
                code: configuration
                """)
        #expect(
            failure { () throws(KedgeError) in try SmallFile.read(directory("none"), "key file", 9) } == """
                kedge: error: could not open key file "\(directory("none"))"
                detail: No such file or directory.
                hint: Create it, or correct the path.
                code: configuration
                """)
        // Files such as those of /proc have no size that could be trusted.
        #expect(try !SmallFile.read("/proc/self/status", "status file", 1 << 20).bytes.isEmpty)
    }
}
