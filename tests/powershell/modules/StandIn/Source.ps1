# Functions made of the table, so that names, types, sets and mandatory parameters are the documented ones.

$script:ConnectionCmdlets = @('Connect-ExchangeOnline', 'Disconnect-ExchangeOnline', 'Get-ConnectionInformation')

# Text of the functions for these cmdlets.
function Get-StandInSource {
    param([string[]]$Name)
    $text = New-Object System.Text.StringBuilder
    foreach ($cmdlet in $Name) { [void]$text.AppendLine((Format-StandInFunction -Name $cmdlet)) }
    $text.ToString()
}

# The PowerShell type that a parameter of a documented type binds as. Enumerations are text, checked by the service.
function Get-StandInType {
    param([string]$Type)
    switch -Regex ($Type) {
        '^SwitchParameter$' { return 'switch' }
        '^Boolean$' { return 'bool' }
        '^DateTime$' { return 'Nullable[datetime]' }
        '^U?Int(16|32|64)$' { return 'int' }
        '^SecureString$' { return 'securestring' }
        '^PSCredential$' { return 'pscredential' }
        '^X509Certificate2$' { return 'System.Security.Cryptography.X509Certificates.X509Certificate2' }
        '^(Unlimited|PSSessionOption)$' { return 'object' }
        '^Guid$' { return 'guid' }
        '^(String|.*IdParameter|Word|Pattern)\[\]$' { return 'string[]' }
        '(\[\]|^MultiValuedProperty)$' { return 'object[]' }
        default { return 'string' }
    }
}

function Format-StandInFunction {
    param([string]$Name)
    $cmdlet = $script:Table.cmdlets[$Name]
    $parameters = New-Object System.Collections.Generic.List[string]
    foreach ($key in $cmdlet.parameters.Keys) {
        if ($key -eq 'WhatIf' -or $key -eq 'Confirm') { continue }
        $fact = $cmdlet.parameters[$key]
        $words = @()
        if ($fact['mandatory']) { $words += 'Mandatory = $true' }
        if ($null -ne $fact['position']) { $words += 'Position = ' + $fact['position'] }
        if ($fact['pipeline'] -eq 'value') { $words += 'ValueFromPipeline = $true' }
        elseif ($fact['pipeline']) { $words += 'ValueFromPipelineByPropertyName = $true' }
        $attributes = ''
        if ($fact['sets']) { foreach ($set in $fact['sets']) { $attributes += '[Parameter(' + ((@($words) + "ParameterSetName = '$set'") -join ', ') + ')]' } }
        else { $attributes = '[Parameter(' + ($words -join ', ') + ')]' }
        if ($fact['mandatory'] -and $fact['type'] -match '\[\]$|MultiValued') { $attributes += '[AllowEmptyCollection()]' }
        $parameters.Add('        ' + $attributes + '[' + (Get-StandInType -Type $fact['type']) + ']$' + $key)
    }
    $binding = @()
    if ($cmdlet.parameters['WhatIf']) { $binding += 'SupportsShouldProcess = $true' }
    if ($cmdlet['default_set']) { $binding += "DefaultParameterSetName = '$($cmdlet['default_set'])'" }
    elseif ($cmdlet['sets']) { $binding += "DefaultParameterSetName = 'Identity'" }
    @(
        "function $Name {"
        "    [CmdletBinding($($binding -join ', '))]"
        '    param('
        ($parameters -join ",`n")
        '    )'
        '    process {'
        "        `$answer = Invoke-StandInCommand -Name '$Name' -Bound `$PSBoundParameters -Command `$PSCmdlet"
        '        foreach ($warning in $answer.Warnings) { $PSCmdlet.WriteWarning($warning) }'
        '        foreach ($item in $answer.Output) { $PSCmdlet.WriteObject($item) }'
        '        if ($null -ne $answer.Terminating) { $PSCmdlet.ThrowTerminatingError($answer.Terminating) }'
        '        if ($null -ne $answer.Error) { $PSCmdlet.WriteError($answer.Error) }'
        '    }'
        '}'
    ) -join "`n"
}

# Runs one call: writes it down, raises the faults that a test has set, asks the tenant. Never throws: the function made
# above raises what comes back, with the -ErrorAction its caller gave.
function Invoke-StandInCommand {
    param([string]$Name, [System.Collections.IDictionary]$Bound, [System.Management.Automation.PSCmdlet]$Command)
    $answer = @{ Output = @(); Warnings = @(); Error = $null; Terminating = $null }
    $changes = [bool]$script:Table.cmdlets[$Name].changes
    $given = @{}
    foreach ($key in @($Bound.Keys)) { $given[$key] = $Bound[$key] }
    $preview = $given.ContainsKey('WhatIf') -and [bool]$given['WhatIf']
    $call = [pscustomobject]@{
        Number = $script:World.Calls.Count + 1; Cmdlet = $Name; Parameters = $given; Changes = $changes; WhatIf = $preview
        TenantId = $null; Prompt = $false; Outcome = 'Running'
    }
    [void]$script:World.Calls.Add($call)

    $asks = $Name -match '^(Remove|Disable)-' -or $Name -eq 'Disconnect-ExchangeOnline'
    if ($given.ContainsKey('Confirm')) { $asks = [bool]$given['Confirm'] }
    if ($asks -and -not $preview -and $script:Table.cmdlets[$Name].parameters['Confirm']) {
        $call.Prompt = $true
        $call.Outcome = 'Would prompt'
        $answer.Terminating = New-StandInError -Kind 'WouldPrompt' -Message "$Name would ask for confirmation here: pass -Confirm:`$false"
        return $answer
    }

    try {
        $connection = $null
        $tenant = $null
        if ($script:ConnectionCmdlets -notcontains $Name) {
            $prefix = ''
            $shown = $Command.MyInvocation.MyCommand.Name
            if ($shown -ne $Name) { $prefix = $shown.Substring($Name.IndexOf('-') + 1, $shown.Length - $Name.Length) }
            $connection = Get-StandInCurrent -Prefix $prefix
            $tenant = $script:World.Tenants[$connection.TenantID]
            $call.TenantId = $connection.TenantID
        }
        if ($preview) {
            $target = ''
            foreach ($key in 'Identity', 'Name') { if ($given.ContainsKey($key)) { $target = [string]$given[$key]; break } }
            [void]$Command.ShouldProcess($target, $Name)
            $call.Outcome = 'WhatIf'
            return $answer
        }
        Test-StandInValue -Name $Name -Given $given
        $fault = Get-StandInDueFault -Name $Name
        if ($fault -and $fault.When -eq 'Before') { throw (New-StandInFailure -Kind $fault.Kind -Message $fault.Message) }
        $world = @{ Tenant = $tenant; Connection = $connection; Given = $given; Answer = $answer; Name = $Name }
        $answer.Output = @(& $script:Handlers[$Name] $world)
        if ($fault -and $fault.When -eq 'After') {
            $answer.Output = @()
            throw (New-StandInFailure -Kind $fault.Kind -Message $fault.Message)
        }
        $call.Outcome = 'Done'
    } catch {
        $exception = $_.Exception
        $kind = 'StandInBroken'
        if ($null -ne $exception.Data['Kind']) { $kind = $exception.Data['Kind'] }
        $call.Outcome = 'Refused: ' + $exception.Message
        $message = $exception.Message
        if ($kind -eq 'StandInBroken') { $message = "the stand-in has a fault of its own: $message`n$($_.ScriptStackTrace)" }
        $record = New-StandInError -Kind $kind -Message $message
        if ($kind -eq 'StandInBroken' -or $Name -eq 'Connect-ExchangeOnline') { $answer.Terminating = $record } else { $answer.Error = $record }
    }
    $answer
}

# A refusal of the service: thrown by the handlers, written as a non-terminating error by the cmdlet.
function New-StandInFailure {
    param([string]$Kind, [string]$Message)
    $exception = New-Object System.InvalidOperationException $Message
    $exception.Data['Kind'] = $Kind
    $exception
}

function New-StandInError {
    param([string]$Kind, [string]$Message)
    $exception = New-Object System.InvalidOperationException $Message
    New-Object System.Management.Automation.ErrorRecord $exception, "[FailureCategory=Cmdlet-$Kind]", 'InvalidOperation', $null
}

# Values of enumerations, and the lengths that the reference names.
function Test-StandInValue {
    param([string]$Name, [hashtable]$Given)
    foreach ($key in $Given.Keys) {
        $fact = $script:Table.cmdlets[$Name].parameters[$key]
        if (-not $fact -or -not $fact['values'] -or $fact['open']) { continue }
        foreach ($value in @($Given[$key])) {
            if (('' -eq [string]$value) -and ($fact['nullable'] -or $Name -eq 'Set-TransportRule')) { continue }
            if ($fact['values'] -notcontains [string]$value) {
                throw (New-StandInFailure -Kind 'ParameterBindingException' -Message "Cannot bind parameter '$key': '$value' is not one of $($fact['values'] -join ', ')")
            }
        }
    }
}

# The fault for this call, if a test has set one: each is raised once.
function Get-StandInDueFault {
    param([string]$Name)
    $due = $null
    foreach ($fault in $script:World.Faults) {
        if ($fault.Raised -or ($fault.Cmdlet -ne '*' -and $fault.Cmdlet -ne $Name)) { continue }
        $fault.Seen++
        if ($fault.Seen -eq $fault.Call -and $null -eq $due) {
            $fault.Raised = $true
            $due = $fault
        }
    }
    $due
}

# The functions of a connection, made once: their script blocks belong to this module and see nothing of the caller.
function Get-StandInFunction {
    if (-not $script:Functions) {
        $script:Functions = @{}
        foreach ($name in $script:Table.cmdlets.Keys) {
            if ($script:ConnectionCmdlets -contains $name) { continue }
            . ([scriptblock]::Create((Format-StandInFunction -Name $name)))
            $script:Functions[$name] = (Get-Item -LiteralPath "function:$name").ScriptBlock
        }
    }
    $script:Functions
}
