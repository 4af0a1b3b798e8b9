using namespace System.Management.Automation.Language

# The file itself, and what Windows PowerShell 5.1 does not have.

function Test-Text {
    # One octet, one character, so that a place in the text is a place in the file.
    $text = [System.Text.Encoding]::GetEncoding(28591).GetString($script:Script.Bytes)
    $line = { param($place) [regex]::Matches($text.Substring(0, $place), "`n").Count + 1 }
    $found = [regex]::Match($text, '[^\x09\x0A\x0D\x20-\x7E]')
    if ($found.Success) { Add-Finding -Rule 'Ascii' -At (& $line $found.Index) -Message ('octet 0x{0:X2}: 5.1 reads a file without a mark in the ANSI code page' -f [int][char]$found.Value) }
    $found = [regex]::Match($text, "(?<!`r)`n")
    if ($found.Success) { Add-Finding -Rule 'LineEnd' -At (& $line $found.Index) -Message 'a line ends in LF without CR' }
    $found = [regex]::Match($text, "`r(?!`n)")
    if ($found.Success) { Add-Finding -Rule 'LineEnd' -At (& $line $found.Index) -Message 'CR without LF' }
    if (-not $text.EndsWith("`r`n")) { Add-Finding -Rule 'LineEnd' -At (& $line $text.Length) -Message 'no line end after the last line' }
    $number = 0
    foreach ($one in ($script:Script.Text -split "`n")) {
        $number++
        if ($one -match "[ `t]+`r?$") { Add-Finding -Rule 'Whitespace' -At $number -Message 'white space at the end of the line' }
        if ($one -match "`t") { Add-Finding -Rule 'Whitespace' -At $number -Message 'a tab' }
    }
}

$script:NewVariables = '^(IsWindows|IsLinux|IsMacOS|IsCoreCLR|PSStyle|EnabledExperimentalFeatures|PSNativeCommandArgumentPassing|PSNativeCommandUseErrorActionPreference)$'
# Static members of .NET that the .NET Framework under 5.1 does not have.
$script:NewMembers = @{
    Convert = '^(ToHexString|FromHexString)'; Path = '^(GetRelativePath|Join|EndsInDirectorySeparator|TrimEndingDirectorySeparator|Exists)$'
    File = '^(SetUnixFileMode|GetUnixFileMode|.*Async|CreateSymbolicLink|OpenHandle)$'; OperatingSystem = '^Is'; RandomNumberGenerator = '^(GetBytes|Fill|GetInt32|GetHexString|GetString)$'
    SHA256 = '^(HashData|HashDataAsync)$'; SHA512 = '^HashData'; Math = '^Clamp$'; Environment = '^(ProcessPath|TickCount64|ProcessId)$'; String = '^Create$'
    Encoding = '^Latin1$'; DateTime = '^UnixEpoch$'; Guid = '^CreateVersion7$'; DateTimeOffset = '^UnixEpoch$'
}

function Test-Version {
    foreach ($kind in 'TernaryExpressionAst', 'PipelineChainAst') {
        foreach ($node in (Get-Node $kind)) { Add-Finding -Rule 'Version' -At $node -Message "$($kind -replace 'Ast$', ''): not in 5.1" }
    }
    foreach ($node in (Get-Node 'BinaryExpressionAst')) { if ($node.Operator -eq 'QuestionQuestion') { Add-Finding -Rule 'Version' -At $node -Message '?? is not in 5.1' } }
    foreach ($node in (Get-Node 'AssignmentStatementAst')) { if ($node.Operator -eq 'QuestionQuestionEquals') { Add-Finding -Rule 'Version' -At $node -Message '??= is not in 5.1' } }
    foreach ($kind in 'MemberExpressionAst', 'InvokeMemberExpressionAst', 'IndexExpressionAst') {
        foreach ($node in (Get-Node $kind)) { if ($node.NullConditional) { Add-Finding -Rule 'Version' -At $node -Message '?. and ?[] are not in 5.1' } }
    }
    foreach ($node in (Get-Node 'ScriptBlockAst')) { if ($null -ne $node.CleanBlock) { Add-Finding -Rule 'Version' -At $node.CleanBlock -Message 'clean {} is not in 5.1' } }
    foreach ($node in (Get-Node 'PipelineAst')) { if ($node.Background) { Add-Finding -Rule 'Version' -At $node -Message '& at the end of a pipeline is not in 5.1' } }
    foreach ($node in (Get-Node 'VariableExpressionAst')) {
        if ($node.VariablePath.UserPath -match $script:NewVariables) { Add-Finding -Rule 'Version' -At $node -Message "`$$($node.VariablePath.UserPath) is not in 5.1" }
        if ($node.VariablePath.IsGlobal) { Add-Finding -Rule 'Banned' -At $node -Message 'a global variable' }
    }
    foreach ($node in (Get-Node 'StringConstantExpressionAst')) {
        if ($node.Value -match '^utf8(NoBOM|BOM)$') { Add-Finding -Rule 'Version' -At $node -Message "the encoding $($node.Value) is not in 5.1" }
    }
    foreach ($node in (Get-Node 'ConstantExpressionAst')) {
        if ($node.Extent.Text -match '^0b|\d(u|y|s|n|us|ul|uy)(kb|mb|gb)?$' -and $node.Extent.Text -notmatch '^0x') { Add-Finding -Rule 'Version' -At $node -Message "the number $($node.Extent.Text) is not in 5.1" }
    }
    foreach ($node in @(Get-Node 'InvokeMemberExpressionAst') + @(Get-Node 'MemberExpressionAst')) {
        if ($null -eq $node) { continue }
        $member = $node.Member.Extent.Text
        if ($node.Static -and $node.Expression -is [TypeExpressionAst]) {
            $type = ($node.Expression.TypeName.Name -split '\.')[-1]
            if ($script:NewMembers.ContainsKey($type) -and $member -match $script:NewMembers[$type]) { Add-Finding -Rule 'Version' -At $node -Message "[$type]::$member is not in the .NET Framework under 5.1" }
        } elseif ($node -is [InvokeMemberExpressionAst] -and -not $node.Static) {
            $count = @($node.Arguments | Where-Object { $null -ne $_ }).Count
            if (($member -eq 'Contains' -and $count -eq 2) -or ($member -eq 'Replace' -and $count -gt 2)) { Add-Finding -Rule 'Version' -At $node -Message ".$member with a comparison is not in the .NET Framework under 5.1" }
        }
    }
    foreach ($token in $script:Script.Tokens) {
        if ($token.Kind -eq 'LineContinuation') { Add-Finding -Rule 'Backtick' -At $token -Message 'a line goes on by a backtick: splat' }
    }
}
