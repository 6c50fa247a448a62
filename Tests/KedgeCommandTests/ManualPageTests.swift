// The manual page in docs/ says what this version does.
import KedgeCore
import Testing

@testable import KedgeCommand

@Suite struct ManualPageTests {
    @Test("docs/kedge.1 is what \"kedge help --man\" prints (lesson 53)")
    func upToDate() throws {
        let path = "\(#filePath)".split(separator: "/").dropLast(3).reduce("") { "\($0)/\($1)" } + "/docs/kedge.1"
        let page = try SmallFile.read(path, "manual page", 1 << 20)
        let printed = ToolRun(["help", "--man"])
        #expect(
            printed.output == String(decoding: page.bytes, as: UTF8.self),
            "write it again: kedge help --man > docs/kedge.1")
    }

    @Test("the page holds every command, option, configuration key and error code")
    func complete() {
        let page = ToolRun(["help", "--man"]).output
        for command in CommandTable.all.map(\.specification) where command.name != HelpCommand.name {
            #expect(page.contains("\n.SS \(ManualPage.text(command.name))"))
            for option in command.options { #expect(page.contains("\n.B \(ManualPage.text(option.usage))\n")) }
        }
        for key in ConfigurationKey.all { #expect(page.contains("\n.B \(ManualPage.text(key.name)) = ")) }
        for code in ErrorCode.allCases { #expect(page.contains(ManualPage.text(code.rawValue))) }
    }

    @Test("plain text stays plain text in roff")
    func escapes() {
        #expect(ManualPage.text(".TH 'a\\-b~^") == "\\&.TH \\(aqa\\e\\-b\\(ti\\(ha")
    }
}
