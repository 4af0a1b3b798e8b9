# What holds for all scripts of a folder together: the common region, the tokens.

# The regions of a script, byte for byte: name -> text. Their names are the same in all scripts that have them.
function Get-Region {
    param([string]$Text)
    $regions = [ordered]@{}
    foreach ($match in [regex]::Matches($Text, '(?ms)^#region (\w+)\r?$.*?^#endregion \1\r?$')) { $regions[$match.Groups[1].Value] = $match }
    $regions
}

# Whether a node stands in a region: what is there may be of use to another script.
function Test-InRegion {
    param($Node)
    foreach ($match in (Get-Region -Text $script:Script.Text).Values) {
        if ($Node.Extent.StartOffset -ge $match.Index -and $Node.Extent.EndOffset -le $match.Index + $match.Length) { return $true }
    }
    $false
}

# -Files: name -> bytes. Findings across files.
function Get-FolderFinding {
    param([Parameter(Mandatory = $true)][System.Collections.IDictionary]$Files)
    $first = @{}
    $tokens = @{}
    foreach ($name in @($Files.Keys | Sort-Object)) {
        $text = [System.Text.Encoding]::UTF8.GetString($Files[$name])
        foreach ($match in [regex]::Matches($text, "'@(\w+)@'")) { $tokens[$match.Groups[1].Value] = $true }
        $regions = Get-Region -Text $text
        if (-not $regions.Contains('Common')) { [pscustomobject]@{ Script = $name; Rule = 'Region'; Line = 1; Message = 'no region Common' } }
        foreach ($region in $regions.Keys) {
            $is = $regions[$region].Value
            if (-not $first.ContainsKey($region)) { $first[$region] = @{ Text = $is; Owner = $name }; continue }
            if ($is -ceq $first[$region].Text) { continue }
            $left = $first[$region].Text -split "`r?`n"
            $right = $is -split "`r?`n"
            $at = 0
            while ($at -lt $left.Count -and $at -lt $right.Count -and $left[$at] -ceq $right[$at]) { $at++ }
            [pscustomobject]@{ Script = $name; Rule = 'Region'; Line = 1; Message = "the region $region differs from that of $($first[$region].Owner) in its line $($at + 1)" }
        }
    }
    foreach ($token in @($script:TokenKind.Keys)) { if (-not $tokens.ContainsKey($token)) { [pscustomobject]@{ Script = '(all)'; Rule = 'Token'; Line = 1; Message = "no script has the token '@$token@'" } } }
}
